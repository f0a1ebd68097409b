"""Re-scored responses as the importance estimators take them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from probe_engine.estimators.importance import Samples
from probe_engine.estimators.per_decision import Decisions
from probe_engine.estimators.token_statistics import TokenStatistics
from probe_engine.model.unit_gradients import UnitObjective

Scores = tuple[Tensor, tuple[TokenStatistics, ...]]
"""S [N_u] of a unit's responses, and their tokens' statistics."""


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
