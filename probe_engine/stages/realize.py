"""Realize: take each step on the weights, re-score the same responses, take it back (method.md §6)."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext

import torch

from probe_engine.checks.statistics import first_order as first_order_holds
from probe_engine.checks.weights import sample_size, tail
from probe_engine.estimators.histogram import histogram
from probe_engine.estimators.importance import matched, psis, snis
from probe_engine.estimators.rescored import Samples
from probe_engine.estimators.weights import degenerate
from probe_engine.events import FindingEvent, HistogramEvent, Part
from probe_engine.model.preserving import in_float32
from probe_engine.model.unit_gradients import UnitGradients
from probe_engine.report import Estimates, Histograms, RealizedRow, Sweep, finding
from probe_engine.spec import RunSpec
from probe_engine.stages import Stage
from probe_engine.stages.measured import Measured
from probe_engine.stages.meter import Meter
from probe_engine.stages.realized_rows import Changes, Realized, realized_row
from probe_engine.stages.resample import obstacle, resampled
from probe_engine.stages.samples import Evaluated, Scores
from probe_engine.stages.scorings import scorings, steps_taken, widened
from probe_engine.stages.self_influence import own_influence
from probe_engine.stages.sweep import sweep
from probe_engine.stages.trips import held_out_step, trips
from probe_engine.types import Batch, Policy


def realize(
    policy: Policy,
    batch: Batch,
    method: UnitGradients,
    eta: float,
    measured: Measured,
    estimates: Estimates,
    spec: RunSpec,
) -> Stage[Realized]:
    """Each step in both pairings, scored once for all estimators; the optimizer's own step first.

    The first held-out step is swept, unless that is left out. Where weights degenerate, and if so asked, the
    change is measured with fresh responses as well.

    Args:
        policy: its weights move, and come back bit by bit.
        batch: what was measured.
        method: scores.
        eta: the learning rate of the preconditioned step.
        measured: what the steps are made of.
        estimates: the predictions.
        spec: which steps to take (`adamw` is left out where it is not known), whether to sweep and to
            resample.
    """
    taken, narrow = steps_taken(policy, spec.steps), widened(policy)
    form = estimates.x_estimator
    rows: list[RealizedRow] = []
    swept: Sweep | None = None
    hindrance: str | None = None
    with in_float32(policy.model) if narrow else nullcontext():
        before: list[Scores] = [
            (S, tuple(t.scores for t in tokens))
            for S, tokens in zip(measured.S, measured.tokens, strict=True)
        ]
        if narrow:
            # S⁺ is scored with wider weights than the gradients were: S must be as well.
            before = [(s.S, s.tokens) for s in method.scores(measured.objectives)]
        again = scorings(measured.objectives, taken, sweeping=not spec.no_sweep, narrow=False)
        meter = Meter("realize", sum(unit.tokens for units in again for unit in units))
        for trip in trips(policy, eta, measured, estimates, taken):
            picked = [i for i, u in enumerate(measured.objectives) if u.unit.role in trip.evaluating]
            evaluated = Evaluated(
                [measured.objectives[i] for i in picked], [before[i] for i in picked], batch.constant_lambda
            )
            with trip.taken():
                after = yield from evaluated.rescored(method, meter)
                samples = evaluated.samples(after)
                changes = _changes(evaluated, samples, after)
                if _degenerate(changes):
                    if hindrance is None:
                        hindrance = obstacle(policy, batch, measured.tokens, spec.policy_temperature)
                    if spec.resample and not hindrance:
                        fresh = yield from resampled(policy, batch, method, evaluated, spec)
                        changes = {"resample": fresh, **changes}
            if not rows:
                yield HistogramEvent(histograms=Histograms(log_w=histogram(samples.log_w)))
            rows += [realized_row(trip, name, c, evaluated, samples, form) for name, c in changes.items()]
            yield Part(realized=list(rows))
            if swept is None and not spec.no_sweep and trip.pairing == "held_out":
                step, along = held_out_step(trip.step, eta, measured, form)
                first_order = torch.tensor([along[u.unit.id] for u in evaluated.units], dtype=torch.float64)
                swept = yield from sweep(
                    trip.step, form, policy.registry, method, step, evaluated, after, first_order, meter
                )
                yield Part(sweep=swept)
    if rows:
        yield FindingEvent(finding=sample_size(rows, eta, hindrance or ""))
        yield FindingEvent(finding=tail(rows, hindrance or ""))
    if spec.no_sweep:
        yield FindingEvent(finding=finding("STAT004", "skip", "left out by --no-sweep"))
    if swept is not None:
        yield FindingEvent(finding=first_order_holds(swept))
    realized = Realized(tuple(rows))
    yield from own_influence(realized, measured, taken)
    return realized


def _changes(evaluated: Evaluated, samples: Samples, after: Sequence[Scores]) -> Changes:
    changes: Changes = {"matched": matched(samples), "snis": snis(samples), "psis": psis(samples)}
    exact = evaluated.per_decision(samples, after)
    return changes if exact is None else {"per_decision": exact, **changes}


def _degenerate(changes: Changes) -> bool:
    raw = changes["snis"]
    return degenerate(raw.ess_fraction, raw.khat, raw.n)
