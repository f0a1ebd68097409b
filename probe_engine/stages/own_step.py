"""The optimizer's own next step on the gradient of some units, and its first order unit by unit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from probe_engine.model.next_step import NextStep, StepParts, next_step
from probe_engine.types import Policy
from probe_engine.vectors import ParameterVector


@dataclass(frozen=True)
class OwnStep:
    """The step that the optimizer makes of U, and what it does to E to first order."""

    step: NextStep
    parts: StepParts
    """of X̄_E·Δθ"""
    x: Mapping[str, float]
    """X_n·Δθ of E, by unit id"""
    y: Mapping[str, float]
    """∂(X̄_E·Δθ)/∂Ȳ_U·Y_m of U, by unit id"""
    max_grad_norm: float | None
    """What was clipped to; None where it is not known."""


def is_known(policy: Policy) -> bool:
    """Whether the optimizer's rule is known for every trainable parameter."""
    return bool(policy.optimizer.rules.keys() >= set(policy.registry.names))


def max_grad_norm(policy: Policy) -> float | None:
    """What the trainer clips to: 0 for no clipping, None where its arguments do not tell."""
    limit = policy.trainer.get("max_grad_norm")
    if isinstance(limit, bool) or not isinstance(limit, int | float) or not limit >= 0:
        return None
    return float(limit)


def step_on(policy: Policy, mean_y: ParameterVector) -> NextStep:
    """The step on Ȳ, clipped as the trainer does, where that is known."""
    return next_step(policy.registry, policy.optimizer, mean_y, max_grad_norm(policy))
