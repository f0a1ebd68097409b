"""Units whose entropy is measured, scored before a step and after it, as the estimators take them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from probe_engine.estimators.change import Change
from probe_engine.estimators.per_decision import Decisions, per_decision
from probe_engine.estimators.rescored import Samples
from probe_engine.estimators.token_statistics import TokenScores
from probe_engine.model.unit_gradients import UnitGradients, UnitObjective
from probe_engine.stages import Stage
from probe_engine.stages.meter import Meter

Scores = tuple[Tensor, tuple[TokenScores, ...]]
"""S [N_u] of a unit's responses, and their tokens' log-probabilities and entropies."""


@dataclass(frozen=True)
class Evaluated:
    """Units, and what they score with the weights that sampled their responses."""

    units: Sequence[UnitObjective]
    scores: Sequence[Scores]
    constant_lambda: bool
    """Whether λ is the same for all responses, as exact token entropies need it."""

    def rescored(self, method: UnitGradients, meter: Meter) -> Stage[list[Scores]]:
        """What they score with the weights as they are now."""
        after: list[Scores] = []
        for scored in method.scores(self.units, meter):
            after.append((scored.S, scored.tokens))
            yield meter.progress
        return after

    def samples(self, after: Sequence[Scores]) -> Samples:
        """Their responses with S and S⁺."""
        return samples(self.units, [S for S, _ in self.scores], [S for S, _ in after])

    def per_decision(self, samples: Samples, after: Sequence[Scores]) -> Change | None:
        """The change by exact token entropies (16), where λ is constant; `samples` are those of `after`."""
        return per_decision(samples, decisions(self.scores, after)) if self.constant_lambda else None

    @property
    def entropies(self) -> Tensor:
        """Of each response an unbiased estimate of the entropy of the policy that sampled it, float64 [N].

        λ·Σ_t h_t where λ is constant, else −λS.
        """
        lam = torch.cat([u.lam for u in self.units])
        if not self.constant_lambda:
            return -lam * torch.cat([S for S, _ in self.scores])
        return lam * torch.stack([t.entropies.double().sum() for _, tokens in self.scores for t in tokens])


def samples(units: Sequence[UnitObjective], before: Sequence[Tensor], after: Sequence[Tensor]) -> Samples:
    """The units' responses, flat, with S and S⁺ (each [N_u]) and their shares in the mean over units."""
    weight, unit_index, group_index = [], [], []
    groups = 0
    for index, unit in enumerate(units):
        for part in unit.group_slices():
            size = part.stop - part.start
            weight += [1 / (len(units) * len(unit.unit.groups) * size)] * size
            unit_index += [index] * size
            group_index += [groups] * size
            groups += 1
    return Samples(
        S=torch.cat(list(before)),
        S_plus=torch.cat(list(after)),
        lam=torch.cat([u.lam for u in units]),
        weight=torch.tensor(weight, dtype=torch.float64),
        unit=torch.tensor(unit_index),
        group=torch.tensor(group_index),
    )


def decisions(before: Sequence[Scores], after: Sequence[Scores]) -> Decisions:
    """The same responses token by token, before and after the step."""
    old, new = ([t for _, tokens in scores for t in tokens] for scores in (before, after))
    return Decisions.of(
        [t.log_probs for t in old],
        [t.log_probs for t in new],
        [t.entropies for t in old],
        [t.entropies for t in new],
    )
