"""What one unit differentiates: its sequences and their weights in L_X and L_Y (method.md (1)–(3))."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from probe_engine.estimators.entropy import (
    length_weights,
    loo_coefficients,
    loss_weights,
    x_weights,
    y_weights,
)
from probe_engine.estimators.rao_blackwell import entropies_to_come
from probe_engine.estimators.token_statistics import TokenStatistics
from probe_engine.model.teacher_forcing import TokenSequence
from probe_engine.types import Batch, Unit

BRIEF_TOKENS = 6
"""Of a response: enough to see whether a number is computed right, on any batch alike."""
BRIEF_CONTEXT = 3
"""Of its prompt."""
CANCELLED = 1e-3
"""A net weight below this share of the largest one is none: float32 rounds 1e-7 of the largest."""


@dataclass(frozen=True)
class UnitObjective:
    """A unit's N responses, flat, with what their weights are made of.

    A block's X and Y are means over its k groups, so each group enters with 1/k.
    """

    unit: Unit
    sequences: tuple[TokenSequence, ...]
    lam: Tensor
    """λ [N], float64"""
    kappa: Tensor
    """κ [N], float64"""
    advantages: Tensor
    """A [N], float64"""

    @property
    def tokens(self) -> int:
        """Prompt and response tokens: what a pass over this unit costs."""
        return sum(len(s) for s in self.sequences)

    @property
    def y_cancels(self) -> bool:
        """Whether equal responses take back each other's part of Y, so that rounding alone is left of it."""
        net: dict[TokenSequence, float] = defaultdict(float)
        weights = (self.advantages * self.kappa).tolist()
        for sequence, weight in zip(self.sequences, weights, strict=True):
            net[sequence] += weight
        return bool(max(map(abs, net.values())) <= CANCELLED * max(map(abs, weights)))

    def lifted(self, scale: float) -> UnitObjective:
        """The same with X and Y times `scale`: X is linear in λ and Y in κ."""
        return replace(self, lam=self.lam * scale, kappa=self.kappa * scale)

    def pair(self) -> UnitObjective:
        """A small unit of its own: two responses of the first group.

        Those of the highest and the lowest advantage, so that Y is not 0 where the group's is not, and not
        the same twice where there is another: X would be 0.
        """
        group = self.unit.groups[0]
        order = sorted(range(len(group.responses)), key=lambda i: float(self.advantages[i]))
        highest = order[-1]
        others = (i for i in order if self.sequences[i] != self.sequences[highest])
        picked = sorted((next(others, order[0]), highest))
        excerpt = replace(group, responses=tuple(group.responses[i] for i in picked))
        return UnitObjective(
            # One role for all: small units share forward passes, which their roles would keep apart.
            replace(self.unit, role="E", groups=(excerpt,)),
            tuple(self.sequences[i] for i in picked),
            self.lam[picked],
            self.kappa[picked],
            self.advantages[picked],
        )

    def brief(self) -> UnitObjective:
        """The ends of a `pair`'s prompt and of its responses; the whole of it where they are the same.

        One is a token longer than the other where it can be: passes that pad, or do without, are seen at it.
        """
        pair = self.pair()
        first, second = (s.ends(BRIEF_CONTEXT, BRIEF_TOKENS) for s in pair.sequences)
        if first == second:
            return pair
        if len(first) == len(second):
            second = second.ends(BRIEF_CONTEXT, max(1, len(second.response) - 1))
        return replace(pair, sequences=(first, second))

    def group_slices(self) -> list[slice]:
        """Where each group's responses lie among the N."""
        slices, start = [], 0
        for group in self.unit.groups:
            slices.append(slice(start, start + len(group.responses)))
            start += len(group.responses)
        return slices

    @property
    def rao_blackwell_weights(self) -> Tensor:
        """λ/(G·k) [N]: X of (2b) is Σ_i of these times the gradient of Σ_t [ h_t + W_t·log π_t ]."""
        return self.lam / (len(self.unit.groups) * self._group_sizes.repeat_interleave(self._group_sizes))

    def entropies_to_come(self, tokens: Sequence[TokenStatistics]) -> tuple[Tensor, ...]:
        """W_t of (2b) for each response's tokens, [L] each, from their exact entropies."""
        group = torch.arange(len(self._group_sizes)).repeat_interleave(self._group_sizes)
        h = pad_sequence([t.entropies.double() for t in tokens], batch_first=True)
        return tuple(w[: len(t)] for w, t in zip(entropies_to_come(h, group), tokens, strict=True))

    @property
    def _group_sizes(self) -> Tensor:
        """G of each group, [k]"""
        return torch.tensor([len(group.responses) for group in self.unit.groups])

    def coefficients(self, S: Tensor) -> Tensor:
        """c [N] of (1), detached."""
        values = S.detach().cpu().double()
        return torch.cat([loo_coefficients(values[g], self.lam[g]) for g in self.group_slices()])

    def weights(self, S: Tensor) -> tuple[Tensor, Tensor]:
        """Weights of S in L_X and L_Y, both [N], detached: X_u = Σ_i wx_i ∇S_i, Y_u = Σ_i wy_i ∇S_i."""
        share = 1 / len(self.unit.groups)
        values = S.detach().cpu().double()
        parts = self.group_slices()
        wx = torch.cat([x_weights(values[g], self.lam[g]) for g in parts])
        wy = torch.cat([y_weights(self.advantages[g], self.kappa[g]) for g in parts])
        return share * wx, share * wy


def objectives(batch: Batch) -> list[UnitObjective]:
    """One objective a unit, in the batch's order."""
    return [_objective(unit, batch) for unit in batch.units]


def _objective(unit: Unit, batch: Batch) -> UnitObjective:
    responses = [(group, response) for group in unit.groups for response in group.responses]
    lengths = torch.tensor([len(r.tokens) for _, r in responses], dtype=torch.float64)
    return UnitObjective(
        unit,
        tuple(TokenSequence(g.tokens, r.tokens) for g, r in responses),
        length_weights(lengths, batch.weighting, batch.max_completion_length),
        loss_weights(lengths, batch.loss_type, batch.max_completion_length, batch.mean_length),
        torch.tensor([r.advantage for _, r in responses], dtype=torch.float64),
    )


def chunks(objective: UnitObjective, micro_batch: int) -> Sequence[slice]:
    """The unit's sequences, at most `micro_batch` at a time."""
    count = len(objective.sequences)
    return [slice(i, min(i + micro_batch, count)) for i in range(0, count, micro_batch)]
