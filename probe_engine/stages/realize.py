"""Realize: take each step on the weights, re-score the same responses, take it back (method.md §6)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch

from probe_engine.checks import statistics as checks
from probe_engine.estimators.histogram import histogram
from probe_engine.estimators.importance import (
    Change,
    Samples,
    matched,
    psis,
    snis,
    unit_ess,
)
from probe_engine.estimators.intervals import t_interval
from probe_engine.estimators.per_decision import per_decision
from probe_engine.estimators.ustatistics import diagonal_share
from probe_engine.events import FindingEvent, HistogramEvent, Part
from probe_engine.model.preserving import in_float32
from probe_engine.model.unit_gradients import UnitGradients, UnitObjective
from probe_engine.model.virtual_step import landed, virtual_step
from probe_engine.report import Estimates, Histograms, RealizedRow, RealizedUnit, SelfInfluence, Sweep
from probe_engine.spec import StepKind
from probe_engine.stages import Stage
from probe_engine.stages.contributions import dots_with_sums, row_dots
from probe_engine.stages.measure import ROLES, Measured
from probe_engine.stages.meter import Meter
from probe_engine.stages.own_step import step_on
from probe_engine.stages.samples import Scores, decisions
from probe_engine.stages.samples import samples as samples_of
from probe_engine.stages.scorings import scorings, steps_taken, widened
from probe_engine.stages.sweep import sweep
from probe_engine.types import Policy, Role

Pairing = Literal["held_out", "same_batch"]
Estimator = Literal["per_decision", "matched", "snis", "psis"]
Estimators = dict[Estimator, Callable[[Samples], Change]]

BY_SEQUENCE: Estimators = {"matched": matched, "snis": snis, "psis": psis}
"""What needs S and S⁺ alone."""


@dataclass(frozen=True)
class Realized:
    """The rows of the report."""

    rows: tuple[RealizedRow, ...]

    def row(self, step: StepKind, pairing: Pairing, estimator: Estimator) -> RealizedRow | None:
        """The row of that name."""
        for row in self.rows:
            if (row.step, row.pairing, row.estimator) == (step, pairing, estimator):
                return row
        return None


@dataclass(frozen=True)
class _Trip:
    """A step, and who is scored at its end."""

    step: StepKind
    pairing: Pairing
    predicted: float | None
    taken: Callable[[], AbstractContextManager[None]]
    """θ⁺ inside, θ outside."""

    @property
    def evaluating(self) -> tuple[Role, ...]:
        return ("E",) if self.pairing == "held_out" else ROLES


def realize(
    policy: Policy,
    method: UnitGradients,
    eta: float,
    measured: Measured,
    estimates: Estimates,
    steps: Collection[StepKind],
    constant_lambda: bool,
) -> Stage[Realized]:
    """Each step in both pairings, scored once for all estimators; the optimizer's own step first.

    held-out: Δθ from U, re-score E; pairs with the split estimate (11), or X̄_E·Δθ of the own step.
    same batch: Δθ from all, re-score all; pairs with the V-statistic, or X̄·Δθ.

    Args:
        policy: its weights move, and come back bit by bit.
        method: scores.
        eta: the learning rate of the preconditioned step.
        measured: what the steps are made of.
        estimates: the predictions.
        steps: which to take; `adamw` is left out where it is not known.
        constant_lambda: whether λ is the same for all responses, as `per_decision` needs it.
    """
    taken, narrow = steps_taken(policy, steps), widened(policy)
    rows: list[RealizedRow] = []
    swept: Sweep | None = None
    with in_float32(policy.model) if narrow else nullcontext():
        before: list[Scores] = list(zip(measured.S, measured.tokens, strict=True))
        if narrow:
            # S⁺ is scored with wider weights than the gradients were: S must be as well.
            before = [(s.S, s.tokens) for s in method.scores(measured.objectives)]
        again = scorings(measured.objectives, taken, narrow=False)
        meter = Meter("realize", sum(unit.tokens for units in again for unit in units))
        for trip in _trips(policy, eta, measured, estimates, taken):
            picked = [i for i, u in enumerate(measured.objectives) if u.unit.role in trip.evaluating]
            units, old = [measured.objectives[i] for i in picked], [before[i] for i in picked]
            new: list[Scores] = []
            with trip.taken():
                for scored in method.scores(units, meter):
                    new.append((scored.S, scored.tokens))
                    yield meter.progress
            S = [s for s, _ in old]
            samples = samples_of(units, S, [s for s, _ in new])
            changes = {name: estimator(samples) for name, estimator in BY_SEQUENCE.items()}
            if constant_lambda:
                changes = {"per_decision": per_decision(samples, decisions(old, new)), **changes}
            if not rows:
                yield HistogramEvent(histograms=Histograms(log_w=histogram(samples.log_w)))
            rows += [_row(trip, name, change, units, samples) for name, change in changes.items()]
            yield Part(realized=list(rows))
            if (trip.step, trip.pairing) == ("preconditioned", "held_out"):
                s = row_dots(measured.scalars, measured.sums.counts).s
                first_order = eta * torch.tensor([s[u.unit.id] for u in units], dtype=torch.float64)
                step = measured.sums.mean_py(["U"]).scaled(eta)
                swept = yield from sweep(policy.registry, method, step, units, S, samples, first_order, meter)
                yield Part(sweep=swept)
    if rows:
        yield FindingEvent(finding=checks.sample_size([r for r in rows if r.estimator == "snis"], eta))
        yield FindingEvent(finding=checks.tail([r for r in rows if r.estimator == "snis"]))
    if swept is not None:
        yield FindingEvent(finding=checks.first_order(swept))
    realized = Realized(tuple(rows))
    yield from _self_influence(realized, measured)
    return realized


def _trips(
    policy: Policy, eta: float, measured: Measured, estimates: Estimates, steps: Sequence[StepKind]
) -> Iterator[_Trip]:
    """One after the other, so that no more than one θ⁺ besides the held-out one is in memory."""
    sums, registry = measured.sums, policy.registry
    for step in steps:
        if step == "preconditioned":
            if (split := estimates.split) is not None:
                apart = sums.mean_py(["U"]).scaled(eta)
                yield _Trip(step, "held_out", split.delta_h1, partial(virtual_step, registry, apart))
            if (v := estimates.v_statistic) is not None:
                whole = sums.mean_py(ROLES).scaled(eta)
                yield _Trip(step, "same_batch", v.delta_h1, partial(virtual_step, registry, whole))
        else:
            if measured.own is not None and estimates.adamw is not None:
                there = measured.own.step.landing
                yield _Trip(step, "held_out", estimates.adamw.delta_h1, partial(landed, registry, there))
            own = step_on(policy, sums.mean_y(ROLES))
            first_order = sums.mean_x(ROLES).dot(own.delta)
            yield _Trip(step, "same_batch", first_order, partial(landed, registry, own.landing))


def _self_influence(realized: Realized, measured: Measured) -> Stage[None]:
    """The same-batch change less the held-out one, and the diagonal's share of what predicts it."""
    same, apart = (
        realized.row("preconditioned", pairing, "matched") for pairing in ("same_batch", "held_out")
    )
    if same is None or apart is None or same.delta_h is None or apart.delta_h is None:
        return
    share = diagonal_share(*dots_with_sums(measured.scalars))
    yield Part(self_influence=SelfInfluence(value=same.delta_h - apart.delta_h, diagonal_share=share))
    yield FindingEvent(finding=checks.self_influence(share, same, apart))


def _row(
    trip: _Trip, estimator: Estimator, change: Change, units: Sequence[UnitObjective], samples: Samples
) -> RealizedRow:
    shares = [
        RealizedUnit(
            id=unit.unit.id, d=float(d), ess=float(ess), log_w=samples.log_w[samples.unit == index].tolist()
        )
        for index, (unit, d, ess) in enumerate(zip(units, change.d_units, unit_ess(samples), strict=True))
    ]
    return RealizedRow(
        step=trip.step,
        pairing=trip.pairing,
        scale=1.0,
        predicted=trip.predicted,
        delta_h=change.delta_h,
        se=change.se,
        ci95=t_interval(change.delta_h, change.se, len(units) - 1),
        estimator=estimator,
        h_before=change.h_before,
        h_after=change.h_after,
        ess=change.ess,
        ess_fraction=change.ess_fraction,
        khat=change.khat,
        N=change.n,
        units=shares,
    )
