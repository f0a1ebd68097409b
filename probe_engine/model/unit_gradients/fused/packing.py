"""Which sequences share a pass: little padding, and memory that does not grow with the batch.

A window is a run of whole units whose graphs live at the same time, for what a response weighs depends on
S of its whole group. Where its sequences differ in length or have a prompt in common, and the model allows
it, they stand one behind the other in one row (`packed_row`). Else they are sorted by length and cut into
rectangles: one padded forward pass each.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from statistics import fmean

import torch
from torch import Tensor

from probe_engine.model.packed_row import COPIES, added, row_tokens
from probe_engine.model.teacher_forcing import TokenSequence
from probe_engine.model.unit_gradients.objective import UnitObjective

PASS_TOKENS = 64
"""What a forward and a reverse pass cost beside their tokens, in tokens: less padding beats one more pass."""


@dataclass(frozen=True)
class Bundle:
    """Sequences that share a forward pass."""

    rows: list[int]
    """By index among those of the window."""
    sequences: list[TokenSequence]
    owners: list[int]
    """Their units, by place in the window."""
    packed: bool
    """In one row; else each in its own, padded to the longest."""

    @property
    def tokens(self) -> int:
        """That the model is given, padding and prompts' copies included."""
        return self._given(COPIES)

    @property
    def scored_tokens(self) -> int:
        """The same where nothing is differentiated."""
        return self._given(1)

    def _given(self, copies: int) -> int:
        if not self.packed:
            return len(self.rows) * max(map(len, self.sequences))
        return row_tokens(self.sequences, self.owners, copies)


@dataclass(frozen=True)
class Window:
    """Units, by number, with their sequences as rows, unit after unit."""

    numbers: tuple[int, ...]
    units: tuple[UnitObjective, ...]
    budget: int
    """Tokens in one pass, padding included."""
    packs: bool = False
    """Whether the model may be given several sequences in one row."""
    alone: bool = False
    """Whether every sequence has its own pass, however short: what helps where neighbours are not without
    influence (GRAD020)."""

    @cached_property
    def rows(self) -> list[TokenSequence]:
        """All sequences."""
        return [s for unit in self.units for s in unit.sequences]

    @cached_property
    def owners(self) -> list[int]:
        """Each row's unit, by its place in the window."""
        return [place for place, unit in enumerate(self.units) for _ in unit.sequences]

    @cached_property
    def places(self) -> Tensor:
        """The same, [rows]."""
        return torch.tensor(self.owners)

    @property
    def spares(self) -> bool:
        """Whether passes in one row could do without padding, or without repeating a prompt."""
        if self.alone:
            return False
        prompts = Counter((owner, s.prompt) for owner, s in zip(self.owners, self.rows, strict=True))
        shared = any(count > 1 and len(prompt) > 1 for (_, prompt), count in prompts.items())
        return shared or len(set(map(len, self.rows))) > 1

    @property
    def in_one_row(self) -> bool:
        """Whether its sequences stand one behind the other."""
        return self.packs and self.spares

    @property
    def bundles(self) -> list[Bundle]:
        """All sequences, each once."""
        if self.alone:
            cut = [[row] for row in range(len(self.rows))]
        elif self.in_one_row:
            cut = one_behind_the_other(self.rows, self.owners, self.budget)
        else:
            cut = rectangles([len(s) for s in self.rows], self.budget)
        return [
            Bundle(
                rows,
                [self.rows[row] for row in rows],
                [self.owners[row] for row in rows],
                self.in_one_row and len(rows) > 1,
            )
            for rows in cut
        ]

    @property
    def oversize(self) -> bool:
        """Whether it is one unit that is too large for its graphs to live at the same time."""
        tokens = row_tokens(self.rows, self.owners) if self.in_one_row else sum(map(len, self.rows))
        return tokens > self.budget

    def weights(self, S: Sequence[Tensor]) -> Tensor:
        """Weights of each row in L_X and L_Y of each unit, [2, units, rows], from each unit's S."""
        return self._placed([torch.stack(unit.weights(s)) for unit, s in zip(self.units, S, strict=True)])

    def rao_blackwell_weights(self) -> Tensor:
        """Weights of each row in X of (2b) of each unit, [1, units, rows]."""
        return self._placed([unit.rao_blackwell_weights[None] for unit in self.units])

    def _placed(self, of_units: Sequence[Tensor]) -> Tensor:
        """[k, units, rows] of each unit's [k, N]; 0 where the row is another unit's."""
        w = torch.zeros(len(of_units[0]), len(self.units), len(self.rows), dtype=torch.float64)
        for place, of_unit in enumerate(of_units):
            w[:, place, self.places == place] = of_unit
        return w


def packed(units: Sequence[UnitObjective], micro_batch: int, *, packs: bool = False) -> list[Window]:
    """Windows of about `micro_batch` sequences, in the order of their first units.

    A pass has at most as many tokens as `micro_batch` of the longest sequences. Padded ones take as many;
    where nothing is padded windows are as large as sequences of the mean length make them, for larger passes
    are no faster and hold more.

    No window mixes roles: the units of E alone are then scored as they were measured but for a prompt's
    second copy, so that S⁺ − S holds as little difference of rounding between them as can be: none in a dense
    model on a CPU.

    Args:
        packs: whether the model may be given several sequences in one row.
    """
    cut: list[Window] = []
    for role in {unit.unit.role: None for unit in units}:
        numbers = [number for number, unit in enumerate(units) if unit.unit.role == role]
        lengths = [len(s) for number in numbers for s in units[number].sequences]
        budget = micro_batch * max(lengths)
        filled = micro_batch * math.ceil(fmean(lengths)) if packs else budget
        cut += windows(units, numbers, filled, budget)
    return [
        replace(window, packs=packs, alone=micro_batch == 1)
        for window in sorted(cut, key=lambda window: window.numbers)
    ]


def windows(units: Sequence[UnitObjective], numbers: Sequence[int], filled: int, budget: int) -> list[Window]:
    """These units in their order, `filled` with tokens at most; a larger one stands alone."""
    cut = [[numbers[i] for i in run] for run in runs([units[n].tokens for n in numbers], filled)]
    return [Window(tuple(group), tuple(units[n] for n in group), budget) for group in cut]


def runs(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """By index, in their order, at most `budget` tokens together or one alone."""
    cut: list[list[int]] = []
    filled = 0
    for row, length in enumerate(lengths):
        if not cut or filled + length > budget:
            cut.append([])
            filled = 0
        cut[-1].append(row)
        filled += length
    return cut


def one_behind_the_other(
    sequences: Sequence[TokenSequence], owners: Sequence[int], budget: int
) -> list[list[int]]:
    """Sequences by index, in their order, in rows of at most `budget` tokens or one sequence."""
    cut: list[list[int]] = []
    tokens, before = 0, Counter[tuple[int, tuple[int, ...]]]()
    for row, (s, owner) in enumerate(zip(sequences, owners, strict=True)):
        if not cut or tokens + added(s, before[owner, s.prompt]) > budget:
            cut.append([])
            tokens = 0
            before.clear()
        cut[-1].append(row)
        tokens += added(s, before[owner, s.prompt])
        before[owner, s.prompt] += 1
    return cut


def rectangles(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Sequences by index, longest first, cut where Σ (padded tokens + PASS_TOKENS) is least.

    A rectangle has at most `budget` padded tokens (or one sequence), and never as many rows as columns:
    that tells the axis of sequences from the axis of positions.
    """
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    least, begins = [0.0], [0]
    for end in range(1, len(order) + 1):
        costs = [
            (least[begin] + (end - begin) * lengths[order[begin]] + PASS_TOKENS, begin)
            for begin in range(end)
            if _fits(end - begin, lengths[order[begin]], budget)
        ]
        cost, begin = min(costs)
        least.append(cost)
        begins.append(begin)
    cut, end = [], len(order)
    while end:
        cut.append(order[begins[end] : end])
        end = begins[end]
    return cut[::-1]


def _fits(rows: int, columns: int, budget: int) -> bool:
    return rows == 1 or (rows * columns <= budget and rows != columns)
