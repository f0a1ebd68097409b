"""Trips: each step in both pairings, and who is scored at its end (method.md §6)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import Literal

from probe_engine.estimators.ustatistics import v_statistic
from probe_engine.model.virtual_step import landed, virtual_step
from probe_engine.report import AdamwEstimate, Estimates, SplitEstimate, XEstimates
from probe_engine.spec import StepKind, XForm
from probe_engine.stages.contributions import dots_with_sums, row_dots
from probe_engine.stages.measured import ROLES, Measured
from probe_engine.stages.own_step import step_on
from probe_engine.types import Policy, Role
from probe_engine.vectors import ParameterVector

Pairing = Literal["held_out", "same_batch"]


@dataclass(frozen=True)
class Trip:
    """A step that is taken, and taken back."""

    step: StepKind
    pairing: Pairing
    predicted: Mapping[XForm, float | None]
    """ΔĤ to first order, by form of X."""
    taken: Callable[[], AbstractContextManager[None]]
    """θ⁺ inside, θ outside."""

    @property
    def evaluating(self) -> tuple[Role, ...]:
        """Whose entropy is measured at its end."""
        return ("E",) if self.pairing == "held_out" else ROLES


def trips(
    policy: Policy, eta: float, measured: Measured, estimates: Estimates, steps: Sequence[StepKind]
) -> Iterator[Trip]:
    """One after the other, so that no more than one θ⁺ besides the held-out one is in memory.

    held-out: Δθ from U, re-score E; pairs with the split estimate (11), or X̄_E·Δθ of the own step.
    same batch: Δθ from all, re-score all; pairs with the V-statistic η·X̄·PȲ, or X̄·Δθ.
    """
    registry = policy.registry
    for step in steps:
        apart = {form: _held_out(estimates.by(form), step) for form in measured.by_form}
        predicted = {form: e.delta_h1 for form, e in apart.items() if e is not None}
        if step == "adamw":
            if predicted and measured.own is not None:
                there = measured.own.step.landing
                yield Trip(step, "held_out", predicted, partial(landed, registry, there))
            own = step_on(policy, measured.y.mean(ROLES))
            taken = partial(landed, registry, own.landing)
        else:
            if predicted:
                from_u = measured.py.mean(["U"]).scaled(eta)
                yield Trip(step, "held_out", predicted, partial(virtual_step, registry, from_u))
            delta = measured.py.mean(ROLES).scaled(eta)
            taken = partial(virtual_step, registry, delta)
        yield Trip(step, "same_batch", _same_batch(measured, step, eta), taken)


def _held_out(estimates: XEstimates, step: StepKind) -> AdamwEstimate | SplitEstimate | None:
    return estimates.adamw if step == "adamw" else estimates.split


def _same_batch(measured: Measured, step: StepKind, eta: float) -> dict[XForm, float | None]:
    """X̄·Δθ by each form of X."""
    if step == "adamw":
        return {form: projected.own_of_all for form, projected in measured.by_form.items()}
    return {
        form: v_statistic(*dots_with_sums(projected.scalars), eta).delta_h1
        for form, projected in measured.by_form.items()
    }


def held_out_step(
    step: StepKind, eta: float, measured: Measured, form: XForm
) -> tuple[ParameterVector, Mapping[str, float]]:
    """Δθ of the step from U, and X_n·Δθ of the units of E by id, with X of this form."""
    projected = measured.by_form[form]
    if step == "adamw":
        assert projected.own is not None, "a held-out trip of it was made"
        return projected.own.step.delta, projected.own.x
    s = row_dots(projected.scalars, measured.y.counts).s
    return measured.py.mean(["U"]).scaled(eta), {unit: eta * dot for unit, dot in s.items()}
