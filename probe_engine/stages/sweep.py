"""Sweep: the same step, shorter and longer, on the held-out units. How far does first order hold?"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from probe_engine.estimators.importance import Samples, matched
from probe_engine.estimators.sweep import SCALES, Reach, sweep_of
from probe_engine.model.unit_gradients import UnitGradients, UnitObjective
from probe_engine.model.virtual_step import virtual_step
from probe_engine.registry import ParameterRegistry, ParameterVector
from probe_engine.report import Sweep
from probe_engine.stages import Stage
from probe_engine.stages.meter import Meter
from probe_engine.stages.samples import samples

OTHER_SCALES = tuple(scale for scale in SCALES if scale != 1)
"""What is scored besides the step itself."""


def sweep(
    registry: ParameterRegistry,
    method: UnitGradients,
    step: ParameterVector,
    units: Sequence[UnitObjective],
    before: Sequence[Tensor],
    taken: Samples,
    first_order: Tensor,
    meter: Meter,
) -> Stage[Sweep]:
    """Scores the units at each scale but 1 (method.md (19)).

    Args:
        step: Δθ at scale 1.
        units: those of E.
        before: S of each, [N_u].
        taken: what scale 1 gave.
        first_order: X_n·Δθ of each, [B_E].
        meter: counts what is scored.
    """
    found = {1.0: taken}
    for scale in OTHER_SCALES:
        after = []
        with virtual_step(registry, step.scaled(scale)):
            for scored in method.scores(units, meter):
                after.append(scored.S)
                yield meter.progress
        found[scale] = samples(units, before, after)
    return sweep_of([Reach(scale, matched(found[scale]), first_order) for scale in SCALES])
