"""Realize: take the step on the weights, re-score the same responses, take it back (method.md §6)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

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
from probe_engine.estimators.ustatistics import diagonal_share
from probe_engine.events import FindingEvent, HistogramEvent, Part, Progress
from probe_engine.model.preserving import in_float32
from probe_engine.model.unit_gradients import UnitGradients, UnitObjective
from probe_engine.model.virtual_step import virtual_step
from probe_engine.registry import wide
from probe_engine.report import Estimates, Histograms, RealizedRow, RealizedUnit, SelfInfluence, Sweep
from probe_engine.stages import Stage
from probe_engine.stages.contributions import dots_with_sums, row_dots
from probe_engine.stages.measure import ROLES, Measured
from probe_engine.stages.samples import samples as samples_of
from probe_engine.stages.sweep import OTHER_SCALES, sweep
from probe_engine.types import Policy, Role

Pairing = Literal["held_out", "same_batch"]
Estimator = Literal["matched", "snis", "psis"]

ESTIMATORS: dict[Estimator, Callable[[Samples], Change]] = {
    "matched": matched,
    "snis": snis,
    "psis": psis,
}


@dataclass(frozen=True)
class Realized:
    """The rows of the report, and the headline measurement unit by unit."""

    rows: tuple[RealizedRow, ...]

    def row(self, pairing: Pairing, estimator: Estimator) -> RealizedRow | None:
        """The row of that name."""
        for row in self.rows:
            if (row.pairing, row.estimator) == (pairing, estimator):
                return row
        return None


def realize(
    policy: Policy, method: UnitGradients, eta: float, measured: Measured, estimates: Estimates
) -> Stage[Realized]:
    """Both pairings of the `preconditioned` step Δθ = η·P Ȳ.

    held-out: Δθ from U, re-score E; pairs with the split estimate (11).
    same batch: Δθ from all, re-score all; pairs with the V-statistic.
    """
    plan: list[tuple[Pairing, tuple[Role, ...], tuple[Role, ...], float | None]] = []
    if estimates.split is not None:
        plan.append(("held_out", ("U",), ("E",), estimates.split.delta_h1))
    if estimates.v_statistic is not None:
        plan.append(("same_batch", ROLES, ROLES, estimates.v_statistic.delta_h1))

    narrow = any(p.dtype != wide(p.dtype) for p in policy.model.parameters())
    rows: list[RealizedRow] = []
    swept: Sweep | None = None
    with in_float32(policy.model) if narrow else nullcontext():
        before = list(measured.S)
        if narrow:
            # S⁺ is scored with wider weights than the gradients were: S must be as well.
            before = [method.score(u)[0] for u in measured.objectives]
        total = sum(u.tokens for _, _, roles, _ in plan for u in measured.objectives if u.unit.role in roles)
        held_out = [u for u in measured.objectives if u.unit.role == "E"] if estimates.split else []
        total += len(OTHER_SCALES) * sum(u.tokens for u in held_out)
        done = 0

        def progress(tokens: int) -> Progress:
            nonlocal done
            done += tokens
            return Progress(stage="realize", done=done, total=total)

        for pairing, updating, evaluating, predicted in plan:
            picked = [i for i, u in enumerate(measured.objectives) if u.unit.role in evaluating]
            after: list[Tensor] = []
            step = measured.sums.mean_py(updating).scaled(eta)
            with virtual_step(policy.registry, step):
                for index in picked:
                    after.append(method.score(measured.objectives[index])[0])
                    yield progress(measured.objectives[index].tokens)
            units = [measured.objectives[i] for i in picked]
            samples = samples_of(units, [before[i] for i in picked], after)
            new = [
                _row(pairing, name, estimator(samples), units, samples, predicted)
                for name, estimator in ESTIMATORS.items()
            ]
            rows += new
            yield Part(realized=list(rows))
            if pairing == plan[0][0]:
                log_w = histogram(samples.log_w)
                yield HistogramEvent(histograms=Histograms(log_w=log_w))
            if pairing == "held_out":
                s = row_dots(measured.scalars, measured.sums.counts).s
                first_order = eta * torch.tensor([s[u.unit.id] for u in units], dtype=torch.float64)
                scored = [before[i] for i in picked]
                swept = yield from sweep(
                    policy.registry, method, step, units, scored, samples, first_order, progress
                )
                yield Part(sweep=swept)
    if rows:
        yield FindingEvent(finding=checks.sample_size([r for r in rows if r.estimator == "snis"], eta))
        yield FindingEvent(finding=checks.tail([r for r in rows if r.estimator == "snis"]))
    if swept is not None:
        yield FindingEvent(finding=checks.first_order(swept))
    realized = Realized(tuple(rows))
    yield from _self_influence(realized, measured)
    return realized


def _self_influence(realized: Realized, measured: Measured) -> Stage[None]:
    """The same-batch change less the held-out one, and the diagonal's share of what predicts it."""
    same, apart = realized.row("same_batch", "matched"), realized.row("held_out", "matched")
    if same is None or apart is None or same.delta_h is None or apart.delta_h is None:
        return
    share = diagonal_share(*dots_with_sums(measured.scalars))
    yield Part(self_influence=SelfInfluence(value=same.delta_h - apart.delta_h, diagonal_share=share))
    yield FindingEvent(finding=checks.self_influence(share, same, apart))


def _row(
    pairing: Pairing,
    estimator: Estimator,
    change: Change,
    units: Sequence[UnitObjective],
    samples: Samples,
    predicted: float | None,
) -> RealizedRow:
    shares = [
        RealizedUnit(
            id=unit.unit.id, d=float(d), ess=float(ess), log_w=samples.log_w[samples.unit == index].tolist()
        )
        for index, (unit, d, ess) in enumerate(zip(units, change.d_units, unit_ess(samples), strict=True))
    ]
    return RealizedRow(
        step="preconditioned",
        pairing=pairing,
        scale=1.0,
        predicted=predicted,
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
