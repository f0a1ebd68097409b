"""Sweep: the same step, shorter and longer, on the held-out units. How far does first order hold?"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from probe_engine.estimators.importance import matched
from probe_engine.estimators.sweep import SCALES, Reach, sweep_of
from probe_engine.model.unit_gradients import UnitGradients
from probe_engine.model.virtual_step import virtual_step
from probe_engine.registry import ParameterRegistry
from probe_engine.report import Sweep
from probe_engine.spec import StepKind, XForm
from probe_engine.stages import Stage
from probe_engine.stages.meter import Meter
from probe_engine.stages.samples import Evaluated, Scores
from probe_engine.vectors import ParameterVector

OTHER_SCALES = tuple(scale for scale in SCALES if scale != 1)
"""What is scored besides the step itself."""


def sweep(
    kind: StepKind,
    form: XForm,
    registry: ParameterRegistry,
    method: UnitGradients,
    step: ParameterVector,
    evaluated: Evaluated,
    taken: Sequence[Scores],
    first_order: Tensor,
    meter: Meter,
) -> Stage[Sweep]:
    """Scores the units at each scale but 1 (method.md (19)).

    Args:
        kind: what the step is called.
        form: of X, in the first order.
        step: Δθ at scale 1.
        evaluated: the units of E.
        taken: what scale 1 gave.
        first_order: X_n·Δθ of each, [B_E].
        meter: counts what is scored.
    """
    found = {1.0: taken}
    for scale in OTHER_SCALES:
        with virtual_step(registry, step.scaled(scale)):
            found[scale] = yield from evaluated.rescored(method, meter)

    def reach(scale: float) -> Reach:
        samples = evaluated.samples(found[scale])
        exact = evaluated.per_decision(samples, found[scale]) if form == "rao_blackwell" else None
        return Reach(scale, exact or matched(samples), first_order)

    return sweep_of(kind, form, [reach(scale) for scale in SCALES])
