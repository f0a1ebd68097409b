"""The derivative test: does a tiny step change entropy as autograd's gradient says? method.md (19b)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
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
from probe_engine.model.unit_gradients import UnitGradients, UnitObjective
from probe_engine.model.virtual_step import virtual_step
from probe_engine.registry import ParameterVector
from probe_engine.report import DerivativeTest
from probe_engine.stages.samples import samples
from probe_engine.types import Policy

UNITS = 2
"""So few that the test costs the same on any batch: what it compares has no sampling noise."""
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
    policy: Policy, units: Sequence[UnitObjective], method: UnitGradients, p: Preconditioner
) -> DerivativeTest | None:
    """Central differences along X̄ and along P Ȳ, in float32 or wider whatever the weights' dtype.

    X̄ and Ȳ are means over a few brief units. The weights are bit-identical afterwards.

    Args:
        units: of the batch; the first ones with policy gradient are tried.

    Returns:
        None where X̄ is 0 or not finite: there is no direction to try.
    """
    informative = sorted(units, key=lambda unit: not bool(unit.advantages.any()))
    tried = [unit.brief() for unit in informative[:UNITS]]
    with in_float32(policy.model):
        S, x, mean_y = _measured(policy, tried, method)
        along_x, along_step = reduce(ParameterVector.plus, x).scaled(1 / len(x)), p(mean_y)
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


def _measured(
    policy: Policy, tried: Sequence[UnitObjective], method: UnitGradients
) -> tuple[list[Tensor], list[ParameterVector], ParameterVector]:
    """S and X of each of these units, and their Ȳ."""
    ids = policy.registry.ids
    x: list[dict[int, Tensor]] = [{} for _ in tried]
    mean_y: dict[int, Tensor] = {}

    def receive(parameter: int, numbers: Sequence[int], of_x: Tensor, of_y: Tensor) -> None:
        for number, part in zip(numbers, of_x, strict=True):
            x[number][parameter] = part
        mean_y[parameter] = mean_y.get(parameter, 0) + of_y.sum(0) / len(tried)

    S = [scored.S for scored in method.measurements(tried, receive)]

    def vector(tensors: Mapping[int, Tensor]) -> ParameterVector:
        return ParameterVector(ids, tuple(tensors.get(index) for index in range(len(ids))))

    return S, [vector(of_unit) for of_unit in x], vector(mean_y)


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
