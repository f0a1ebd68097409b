"""The derivative test: does a tiny step change entropy as autograd's gradient says? method.md (19b)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

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
)
from probe_engine.model.preconditioner import Preconditioner
from probe_engine.model.preserving import in_float32
from probe_engine.model.unit_gradients import UnitGradients, UnitObjective
from probe_engine.model.unit_gradients.loop import VectorSum
from probe_engine.model.virtual_step import virtual_step
from probe_engine.registry import ParameterVector
from probe_engine.report import DerivativeTest
from probe_engine.stages.samples import samples
from probe_engine.types import Policy

UNITS = 4
"""So few that the test costs the same on any batch: what it compares has no sampling noise."""
CLOSER = 32
"""How much nearer a departure from 1 is looked at again. A ReLU kink in reach of ±ε made 0.993 of 1 at ε
and ε/2 alike, and 1.0000 at ε/32; DoRA's factors stayed to 0.0005."""
PILOTS = 2
"""Scorings, at most, that find the ε of RMS_LOG_WEIGHT: a second one where the first guess was far off."""
NEAR = 4.0
"""Guesses within this factor of it are scaled and believed."""
PLAIN = TOLERANCE / 3
"""A ratio at ε that is nearer to 1 leaves nothing to extrapolate."""


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
        along_x, along_step, S = _directions(policy, tried, method, p)
        if not 0 < along_x.norm() < math.inf:
            return None
        # By unit [2, B]: what autograd's gradient says of both directions.
        slopes = torch.tensor(
            [method.contract(u, s, [along_x, along_step], [])[0] for u, s in zip(tried, S, strict=True)],
            dtype=torch.float64,
        ).T

        def ratio(v: ParameterVector, slope: Tensor) -> tuple[float | None, float | None]:
            """Measured over predicted along v, and its SE; None where no ratio settles."""

            def scored(scale: float) -> list[Tensor]:
                with virtual_step(policy.registry, v.scaled(scale)):
                    return [s.S for s in method.scores(tried)]

            epsilon = _epsilon(scored, tried, S, slope)

            def at(e: float) -> Factor:
                steps = (samples(tried, S, scored(sign * e)) for sign in (1, -1))
                return factor(central_difference(*steps), e * slope)

            whole = at(epsilon)
            if abs(whole.value - 1) <= PLAIN:
                return whole.value, whole.se
            half = at(epsilon / 2)
            if not settled(whole.value, half.value):
                return None, None
            value = extrapolated(whole.value, half.value)
            if abs(value - 1) > TOLERANCE and not confirmed(value, at(epsilon / CLOSER).value):
                return None, None
            return value, whole.se

        ratio_x, _ = ratio(along_x, slopes[0])
        moves = 0 < along_step.norm() < math.inf
        ratio_step, se = ratio(along_step, slopes[1]) if moves else (None, None)
    return DerivativeTest(along_x=ratio_x, along_step=ratio_step, along_step_se=se, units=len(tried))


def _directions(
    policy: Policy, tried: Sequence[UnitObjective], method: UnitGradients, p: Preconditioner
) -> tuple[ParameterVector, ParameterVector, list[Tensor]]:
    """X̄ and P Ȳ of these units, and S of each."""
    x, y, S = VectorSum(policy.registry), VectorSum(policy.registry), []
    for unit in tried:
        measured = method.measure(unit)
        x.add(measured.x, 1 / len(tried))
        y.add(measured.y, 1 / len(tried))
        S.append(measured.S)
    return x.total, p(y.total), S


def _epsilon(
    scored: Callable[[float], list[Tensor]],
    tried: Sequence[UnitObjective],
    S: Sequence[Tensor],
    slope: Tensor,
) -> float:
    """The ε at which the log-weights' root mean square is about RMS_LOG_WEIGHT."""
    before = torch.cat(list(S))
    # |X_n·v| ≤ rms(c)·rms(∇S·v): this guess is too long a step rather than too short.
    c = torch.cat([u.coefficients(s) for u, s in zip(tried, S, strict=True)])
    steepest = float(slope.abs().max())
    epsilon = RMS_LOG_WEIGHT * float(c.square().mean().sqrt()) / steepest if steepest > 0 else 1.0
    for _ in range(PILOTS):
        rms = float((torch.cat(scored(epsilon)) - before).square().mean().sqrt())
        if not math.isfinite(rms):
            epsilon /= 1000
        elif rms > 0:
            epsilon *= RMS_LOG_WEIGHT / rms
            if 1 / NEAR < RMS_LOG_WEIGHT / rms < NEAR:
                break
    return epsilon
