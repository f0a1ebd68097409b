"""The derivative test: does a tiny step change entropy as autograd's gradient says? method.md (19b)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import reduce

import torch
from torch import Tensor

from probe_engine.estimators.derivative import (
    RMS_LOG_WEIGHT,
    TOLERANCE,
    Factor,
    central_difference,
    confirmed,
    extrapolated,
    factor,
    settled,
    tolerance_along_step,
)
from probe_engine.estimators.rescored import Samples
from probe_engine.model.preconditioner import Preconditioner
from probe_engine.model.preserving import in_float32
from probe_engine.model.unit_gradients import Measurement, UnitGradients, UnitObjective
from probe_engine.model.unit_gradients.received import measured_together
from probe_engine.model.virtual_step import virtual_step
from probe_engine.report import DerivativeTest
from probe_engine.stages.samples import samples
from probe_engine.stages.scorings import widened
from probe_engine.types import Policy
from probe_engine.vectors import ParameterVector

CLOSER = 32
"""How much nearer a departure from 1 is looked at again. A ReLU kink in reach of ±ε made 0.993 of 1 at ε
and ε/2 alike, and 1.0000 at ε/32; DoRA's factors stayed to 0.0005."""
GUESSES = 3
"""Steps, at most, that look for the ε of RMS_LOG_WEIGHT."""
NEAR = 2.0
"""A step within this factor of it is taken as it is."""
HALVINGS = 2
"""Of ε, at most, until the ratio settles."""
PLAIN = 3
"""A ratio at ε that departs from 1 by less than this part of the tolerance leaves nothing to extrapolate."""


def derivative_test(
    policy: Policy,
    tried: Sequence[UnitObjective],
    method: UnitGradients,
    p: Preconditioner,
    known: Sequence[Measurement] = (),
) -> DerivativeTest | None:
    """Central differences along X̄ and along P Ȳ, in float32 or wider whatever the weights' dtype.

    X̄ and Ȳ are means over the units. The weights are bit-identical afterwards.

    Args:
        tried: a few small units, of which what is compared has no sampling noise.
        method: measures and scores them.
        known: what it measured of them with the weights as they are, where that was kept.

    Returns:
        None where X̄ is 0 or not finite: there is no direction to try.
    """
    narrow = widened(policy)
    with in_float32(policy.model):
        units = measured_together(method, policy.registry, tried) if narrow or not known else known
        S, x = [u.S for u in units], [u.x for u in units]
        along_x, along_step = _mean(x), p(_mean([u.y for u in units]))
        if known:  # vectors are small enough to be kept
            along_x, along_step = along_x.held(), along_step.held()
        if not 0 < along_x.norm() < math.inf:
            return None
        # By unit [2, B]: what autograd's gradient says of both directions.
        slopes = torch.tensor(
            [[of_unit.dot(v) for of_unit in x] for v in (along_x, along_step)], dtype=torch.float64
        )

        def ratio(
            v: ParameterVector, slope: Tensor, tolerance: Callable[[float | None], float]
        ) -> tuple[float | None, float | None]:
            """Measured over predicted along v, and its SE; None where no ratio settles.

            Args:
                tolerance: of a departure from 1, given the ratio's SE.
            """

            def moved(epsilon: float) -> Samples:
                with virtual_step(policy.registry, v.scaled(epsilon)):
                    return samples(tried, S, [s.S for s in method.scores(tried)])

            def at(epsilon: float, forward: Samples | None = None) -> Factor:
                change = central_difference(forward or moved(epsilon), moved(-epsilon))
                return factor(change, epsilon * slope)

            epsilon, forward = _step(moved, tried, S, slope)
            first = whole = at(epsilon, forward)
            tolerated = tolerance(first.se)
            if abs(whole.value - 1) <= tolerated / PLAIN:
                return whole.value, whole.se
            for halvings in range(1, HALVINGS + 1):
                half = at(epsilon / 2**halvings)
                if settled(whole.value, half.value):
                    break
                whole = half
            else:
                return None, None
            value = extrapolated(whole.value, half.value)
            if abs(value - 1) > tolerated and not confirmed(value, at(epsilon / CLOSER).value):
                return None, None
            return value, first.se

        ratio_x, _ = ratio(along_x, slopes[0], lambda _: TOLERANCE)
        moves = 0 < along_step.norm() < math.inf
        ratio_step, se = ratio(along_step, slopes[1], tolerance_along_step) if moves else (None, None)
    return DerivativeTest(along_x=ratio_x, along_step=ratio_step, along_step_se=se, units=len(tried))


def _mean(vectors: Sequence[ParameterVector]) -> ParameterVector:
    return reduce(ParameterVector.plus, vectors).scaled(1 / len(vectors))


def _step(
    moved: Callable[[float], Samples], tried: Sequence[UnitObjective], S: Sequence[Tensor], slope: Tensor
) -> tuple[float, Samples]:
    """An ε at which the log-weights' root mean square is about RMS_LOG_WEIGHT, and what is scored there."""
    # |X_n·v| ≤ rms(c)·rms(∇S·v): this guess is too long a step rather than too short.
    c = torch.cat([u.coefficients(s) for u, s in zip(tried, S, strict=True)])
    steepest = float(slope.abs().max())
    epsilon = RMS_LOG_WEIGHT * float(c.square().mean().sqrt()) / steepest if steepest > 0 else 1.0
    for guesses_left in reversed(range(GUESSES)):
        forward = moved(epsilon)
        rms = float(forward.log_w.square().mean().sqrt())
        if not guesses_left or rms == 0 or 1 / NEAR < RMS_LOG_WEIGHT / rms < NEAR:
            break
        epsilon *= RMS_LOG_WEIGHT / rms if math.isfinite(rms) else 1e-3
    return epsilon, forward
