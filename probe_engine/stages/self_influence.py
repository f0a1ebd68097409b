"""Self-influence: same-batch less held-out change, and the diagonal's share of what predicts it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import torch
from torch import Tensor

from probe_engine.checks import statistics as checks
from probe_engine.estimators.self_influence import self_influence
from probe_engine.estimators.ustatistics import diagonal_share
from probe_engine.events import FindingEvent, Part
from probe_engine.report import RealizedRow, SelfInfluence
from probe_engine.spec import StepKind
from probe_engine.stages import Stage
from probe_engine.stages.contributions import dots_with_sums
from probe_engine.stages.measured import Measured
from probe_engine.stages.realized_rows import JUDGED, Realized


def own_influence(realized: Realized, measured: Measured, steps: Sequence[StepKind]) -> Stage[None]:
    """Of the first step that was taken in both pairings, by the best estimator that both have."""
    for step, estimator in product(steps, JUDGED):
        same, apart = (realized.row(step, pairing, estimator) for pairing in ("same_batch", "held_out"))
        if same is not None and apart is not None:
            evaluating = torch.tensor([o.unit.role == "E" for o in measured.objectives])
            value, se = self_influence(_shares(same), _shares(apart), evaluating)
            share = diagonal_share(*dots_with_sums(measured.scalars))
            own = SelfInfluence(step=step, estimator=estimator, value=value, se=se, diagonal_share=share)
            yield Part(self_influence=own)
            yield FindingEvent(finding=checks.self_influence(share, same, apart))
            return


def _shares(row: RealizedRow) -> Tensor:
    return torch.tensor([unit.d for unit in row.units], dtype=torch.float64)
