"""Estimate: δH₁ with its standard errors, from the measured dot products."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import torch
from torch import Tensor

from probe_engine.checks import statistics as checks
from probe_engine.checks.x_form import x_form
from probe_engine.errors import ProbeError
from probe_engine.estimators.adamw import adamw_estimate
from probe_engine.estimators.histogram import histogram
from probe_engine.estimators.split import split_estimate
from probe_engine.estimators.ustatistics import one_sided, u_statistic, v_statistic
from probe_engine.events import EstimateEvent, FindingEvent, HistogramEvent, Part, Units
from probe_engine.report import (
    AdamwEstimate,
    AdamwParts,
    Estimates,
    Finding,
    Histogram,
    Histograms,
    Influence,
    XEstimates,
)
from probe_engine.spec import XEstimator, XForm
from probe_engine.stages import Stage
from probe_engine.stages.baselines import BaselineParts
from probe_engine.stages.contributions import SUFFIXES, RowDots, dots_with_sums, row_dots
from probe_engine.stages.measured import ROLES, Measured, Projected
from probe_engine.stages.own_step import OwnStep
from probe_engine.stages.rows import completed
from probe_engine.types import Policy


def learning_rate(policy: Policy) -> float:
    """η.

    Raises:
        ProbeError: neither the checkpoint nor the options say what it is.
    """
    if policy.optimizer.lr is None:
        raise ProbeError(
            "expected a learning rate, neither the optimizer state nor the options say one",
            "Say which learning rate the next step has.",
            code="OPT007",
            commands=("probe-tui CHECKPOINT --lr 1e-6",),
        )
    return policy.optimizer.lr


def estimate(eta: float, measured: Measured, x_estimator: XEstimator = "score") -> Stage[Estimates]:
    """U- and V-statistic, split estimate, the own step, baselines, influence matrix, histograms.

    Args:
        eta: the learning rate.
        measured: with both forms of X, where they were asked for.
        x_estimator: whose estimates are the headline, where they are there; of `both` those with the smaller
            standard error.
    """
    found = {form: _projected(eta, projected) for form, projected in measured.by_form.items()}
    baselines = BaselineParts.of(measured)
    rows = baselines.in_rows(measured.rows)
    for form, (_, dots) in found.items():
        rows = tuple(completed(row, dots, form, eta) for row in rows)
    yield Units(rows=list(rows))

    score, _ = found["score"]
    rao_blackwell = found["rao_blackwell"][0] if "rao_blackwell" in found else None
    chosen = _headline(score, rao_blackwell, x_estimator)
    estimates = Estimates(
        u_statistic=score.u_statistic,
        v_statistic=v_statistic(*dots_with_sums(measured.scalars), eta),
        split=score.split,
        adamw=score.adamw,
        rao_blackwell=rao_blackwell,
        x_estimator=chosen,
        baselines=baselines.beside(measured.by_form[chosen].scalars, found[chosen][1]),
    )
    yield EstimateEvent(estimates=estimates)
    histograms = {
        f"{side}{SUFFIXES[form]}": _histogram(
            getattr(row, f"contribution_{side}{SUFFIXES[form]}") for row in rows
        )
        for form in found
        for side in ("s", "r")
    }
    yield HistogramEvent(histograms=Histograms(**histograms))
    if measured.pairs is not None:
        yield Part(influence=_influence(eta, measured.pairs, measured))
    for check in _checks(estimates, measured, x_estimator, {row.id: row.prompt for row in rows}):
        yield FindingEvent(finding=check)
    return estimates


def _projected(eta: float, projected: Projected) -> tuple[XEstimates, RowDots]:
    """What one form of X says."""
    scalars = projected.scalars
    dots = row_dots(scalars, {r: sum(u.role == r for u in scalars) for r in ROLES})
    s, t, r = (_tensor(values.values()) for values in (dots.s, dots.t, dots.r))
    estimates = XEstimates(
        u_statistic=u_statistic(r, eta, projected.pairs) if len(r) else None,
        split=split_estimate(s, t, eta) if len(s) and len(t) else None,
        adamw=None if projected.own is None else _adamw(projected.own),
    )
    return estimates, dots


def _headline(score: XEstimates, rao_blackwell: XEstimates | None, asked: XEstimator) -> XForm:
    if rao_blackwell is None:
        return "score"
    if asked != "both":
        return asked
    ours, theirs = rao_blackwell.se, score.se
    return "rao_blackwell" if ours is not None and theirs is not None and ours < theirs else "score"


def _influence(eta: float, pairs: Tensor, measured: Measured) -> Influence:
    other = measured.by_form.get("rao_blackwell")
    return Influence(
        ids=[u.id for u in measured.scalars],
        K=(eta * pairs).tolist(),
        K_rb=None if other is None or other.pairs is None else (eta * other.pairs).tolist(),
    )


def _checks(
    estimates: Estimates, measured: Measured, asked: XEstimator, prompts: Mapping[str, str]
) -> Iterator[Finding]:
    """On the estimates of the headline."""
    if (u := estimates.headline.u_statistic) is None:
        return
    yield x_form(estimates, asked)
    yield checks.interval(u)
    yield checks.degeneracy(u)
    scalars = measured.by_form[estimates.x_estimator].scalars
    x_shares, y_shares = map(_shares, one_sided(*dots_with_sums(scalars)))
    yield checks.concentration([unit.id for unit in scalars], x_shares, y_shares, prompts)


def _adamw(own: OwnStep) -> AdamwEstimate:
    parts = own.parts
    return adamw_estimate(
        _tensor(own.x.values()),
        _tensor(own.y.values()),
        AdamwParts(
            gradient=parts.gradient,
            clipping=parts.clipping,
            momentum=parts.momentum,
            weight_decay=parts.weight_decay,
        ),
        clip=own.step.clip,
        max_grad_norm=own.max_grad_norm,
    )


def _histogram(contributions: Iterable[float | None]) -> Histogram | None:
    values = [v for v in contributions if v is not None]
    return histogram(_tensor(values)) if values else None


def _shares(contributions: Tensor) -> list[float]:
    """Each one's share of Σ|contributions|; 0 where all are."""
    sizes = contributions.abs()
    return (sizes / sizes.sum().clamp_min(torch.finfo(sizes.dtype).tiny)).tolist()


def _tensor(values: Iterable[float]) -> Tensor:
    return torch.tensor(list(values), dtype=torch.float64)
