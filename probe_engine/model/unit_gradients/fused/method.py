"""The method itself: windows of units, their passes, and what becomes of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from typing import TypeVar

import torch
from torch import Tensor, nn

from probe_engine.estimators.token_statistics import TokenScores, TokenStatistics
from probe_engine.model.teacher_forcing import Layout, device_of, response_logits, response_scores
from probe_engine.model.unit_gradients.fused.packing import Window, packed
from probe_engine.model.unit_gradients.fused.places import Places
from probe_engine.model.unit_gradients.fused.reverse import Pass, reverse
from probe_engine.model.unit_gradients.fused.tape import Tape
from probe_engine.model.unit_gradients.interface import (
    Dots,
    Measurement,
    Passed,
    Receive,
    ReceiveX,
    Rescored,
    Scored,
    untold,
)
from probe_engine.model.unit_gradients.objective import UnitObjective
from probe_engine.model.unit_gradients.received import Contractions, UnitVectors, handed_over
from probe_engine.registry import ParameterRegistry, ParameterVector

T = TypeVar("T")


@dataclass(frozen=True)
class Fused:
    """One forward and one reverse pass for X and Y of all units of a window, one more for X of (2b).

    Memory is that of `micro_batch` sequences as long as the longest; of shorter ones a window takes more.
    Only a unit that is larger than a window is scored once more, and then differentiated in parts.
    """

    model: nn.Module
    registry: ParameterRegistry
    micro_batch: int
    temperature: float = 1.0
    name: str = "fused"
    keeps_vectors: bool = True
    _without_rule: set[int] = field(default_factory=set)
    """Parameters, by index, that some use without a rule was seen of."""

    @cached_property
    def _places(self) -> Places:
        return Places.of(self.model, self.registry)

    @property
    def attention(self) -> str:
        """The model's own attention implementation."""
        return str(getattr(getattr(self.model, "config", None), "_attn_implementation", "unknown"))

    @property
    def fallback_parameters(self) -> int:
        """Parameters that autograd differentiated so far, for want of a rule."""
        return len(self._without_rule)

    def measure(self, objective: UnitObjective, *, rao_blackwell: bool = False) -> Measurement:
        """S, X_u and Y_u of one unit."""
        vectors = UnitVectors(self.registry)
        receive_rb = vectors.add_rao_blackwell if rao_blackwell else None
        (scored,) = self.measurements([objective], vectors, receive_rb=receive_rb)
        x_rb = vectors.rao_blackwell(0) if rao_blackwell else None
        return Measurement(objective, scored.S, scored.tokens, *vectors.of(0), x_rb)

    def measurements(
        self,
        units: Sequence[UnitObjective],
        receive: Receive,
        passed: Passed = untold,
        receive_rb: ReceiveX | None = None,
    ) -> Iterator[Scored]:
        """First pass over all units, window by window."""

        def of(window: Window) -> list[Scored]:
            return (self._one_large if window.oversize else self._at_once)(window, receive, receive_rb)

        return _in_order(packed(units, self.micro_batch), of, passed)

    def scores(self, units: Sequence[UnitObjective], passed: Passed = untold) -> Iterator[Rescored]:
        """S, and each response's log-probabilities and entropies, in the windows of `measurements`."""
        return _in_order(packed(units, self.micro_batch), self._rescored, passed)

    def score(self, objective: UnitObjective) -> Scored:
        """S and token statistics of one unit, without a graph."""
        (window,) = packed([objective], self.micro_batch)
        (scored,) = self._scored(window)
        return scored

    def contract(
        self,
        objective: UnitObjective,
        S: Tensor,
        x_directions: Sequence[ParameterVector],
        y_directions: Sequence[ParameterVector],
        tokens: Sequence[TokenStatistics] = (),
    ) -> Dots:
        """The dot products of one unit."""
        scored = Scored(objective, S, tuple(tokens))
        (dots,) = self.contractions([scored], x_directions, y_directions, rao_blackwell=bool(tokens))
        return dots

    def contractions(
        self,
        scored: Sequence[Scored],
        x_directions: Sequence[ParameterVector],
        y_directions: Sequence[ParameterVector],
        passed: Passed = untold,
        *,
        rao_blackwell: bool = False,
    ) -> Iterator[Dots]:
        """Second pass. The weights are known and a dot product is linear: no graph waits for another."""
        dots = Contractions(x_directions, y_directions, len(scored), rao_blackwell=rao_blackwell)
        receive_rb = dots.add_rao_blackwell if rao_blackwell else None

        def of(window: Window) -> list[Dots]:
            self._in_parts(window, [scored[n] for n in window.numbers], dots, receive_rb)
            return [dots.of(number) for number in window.numbers]

        return _in_order(packed([s.objective for s in scored], self.micro_batch), of, passed)

    def _one_large(self, window: Window, receive: Receive, receive_rb: ReceiveX | None) -> list[Scored]:
        """A unit whose weights must be known before it is differentiated in parts."""
        (scored,), (number,) = self._scored(window), window.numbers
        vectors = UnitVectors(self.registry)
        self._in_parts(window, [scored], vectors, vectors.add_rao_blackwell if receive_rb else None)
        measured = Measurement(
            scored.objective, scored.S, scored.tokens, *vectors.of(number), vectors.rao_blackwell(number)
        )
        handed_over(number, measured, receive, receive_rb)
        return [scored]

    def _scored(self, window: Window) -> list[Scored]:
        with torch.no_grad():
            return _split(window, [self._tape(window, rows) for rows in window.rectangles])

    @torch.no_grad()
    def _rescored(self, window: Window) -> list[Rescored]:
        scores: list[tuple[TokenScores, ...]] = []
        for rows in window.rectangles:
            layout = Layout.of([window.rows[row] for row in rows], device=device_of(self.model))
            scores.append(response_scores(response_logits(self.model, layout), layout, self.temperature))
        return [
            Rescored(unit, torch.stack([t.log_probs.double().sum() for t in tokens]), tokens)
            for unit, tokens in zip(window.units, _by_unit(window, scores), strict=True)
        ]

    def _at_once(self, window: Window, receive: Receive, receive_rb: ReceiveX | None) -> list[Scored]:
        """All graphs of the window, then their reverse passes."""
        tapes = self._tapes(window, window.rectangles)
        scored = _split(window, tapes)
        self._reverse(window, window.rectangles, tapes, scored, receive, receive_rb)
        return scored

    def _in_parts(
        self, window: Window, scored: Sequence[Scored], receive: Receive, receive_rb: ReceiveX | None
    ) -> None:
        """Rectangle by rectangle: what arrives are parts of the units' sums."""
        tokens = [t for s in scored for t in s.tokens]
        for rows in window.rectangles:
            tapes = self._tapes(window, [rows], tokens)
            self._reverse(window, [rows], tapes, scored, receive, receive_rb)

    def _reverse(
        self,
        window: Window,
        rectangles: Sequence[list[int]],
        tapes: Sequence[Tape],
        scored: Sequence[Scored],
        receive: Receive,
        receive_rb: ReceiveX | None,
    ) -> None:
        """Of S, then of what (2b) differentiates, whose weights of tokens follow from the forward passes."""

        def passes(roots: Iterable[Tensor], weights: Tensor) -> list[Pass]:
            return [
                Pass(tape, root, window.places[rows], weights[:, :, rows])
                for tape, root, rows in zip(tapes, roots, rectangles, strict=True)
            ]

        of_S = passes([tape.S for tape in tapes], window.weights([s.S for s in scored]))
        again = receive_rb is not None
        self._without_rule.update(reverse(self.registry, of_S, window.numbers, receive, again=again))
        if receive_rb is not None:
            to_come = [w for s in scored for w in s.objective.entropies_to_come(s.tokens)]
            roots = [
                tape.rao_blackwell([to_come[row] for row in rows])
                for tape, rows in zip(tapes, rectangles, strict=True)
            ]
            of_sums = passes(roots, window.rao_blackwell_weights())
            reverse(self.registry, of_sums, window.numbers, receive_rb, again=False)

    def _tapes(
        self, window: Window, rectangles: Sequence[list[int]], tokens: Sequence[TokenStatistics] = ()
    ) -> list[Tape]:
        while True:
            tapes = [self._tape(window, rows, tokens) for rows in rectangles]
            cut_off = set().union(*(tape.cut_off for tape in tapes))
            if not cut_off:
                return tapes
            self._without_rule.update(cut_off)

    def _tape(self, window: Window, rows: Sequence[int], tokens: Sequence[TokenStatistics] = ()) -> Tape:
        """
        Args:
            tokens: statistics of all the window's responses, where they are known.
        """
        sequences = [window.rows[row] for row in rows]
        return Tape(
            self.model,
            self.registry,
            self._places,
            sequences,
            self.temperature,
            without_rule=self._without_rule,
            tokens=[tokens[row] for row in rows] if tokens else (),
        )


def _split(window: Window, tapes: Sequence[Tape]) -> list[Scored]:
    """S and token statistics of all rows, unit by unit."""
    S = _by_unit(window, [tape.S.detach().cpu() for tape in tapes])
    tokens = _by_unit(window, [tape.tokens for tape in tapes])
    return [Scored(unit, torch.stack(s), t) for unit, s, t in zip(window.units, S, tokens, strict=True)]


def _by_unit(window: Window, by_rectangle: Iterable[Iterable[T]]) -> list[tuple[T, ...]]:
    """What came of each row, rectangle by rectangle, as each unit's in its order."""
    order = [row for rows in window.rectangles for row in rows]
    found = dict(zip(order, chain.from_iterable(by_rectangle), strict=True))
    rows = iter(range(len(order)))
    return [tuple(found[next(rows)] for _ in unit.sequences) for unit in window.units]


def _in_order(windows: Sequence[Window], of: Callable[[Window], Sequence[T]], passed: Passed) -> Iterator[T]:
    """What comes window by window, unit by unit: each as soon as all before it are there."""
    waiting: dict[int, T] = {}
    turn = 0
    for window in windows:
        waiting.update(zip(window.numbers, of(window), strict=True))
        passed(sum(unit.tokens for unit in window.units))
        while turn in waiting:
            yield waiting.pop(turn)
            turn += 1
