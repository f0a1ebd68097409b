"""Estimate: δH₁ with its standard errors, from the measured dot products."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from probe_engine.checks import statistics as checks
from probe_engine.errors import ProbeError
from probe_engine.estimators.adamw import adamw_estimate
from probe_engine.estimators.baselines import covariance, discriminant
from probe_engine.estimators.histogram import histogram
from probe_engine.estimators.split import split_estimate
from probe_engine.estimators.token_statistics import TokenStatistics
from probe_engine.estimators.ustatistics import one_sided, u_statistic, v_statistic
from probe_engine.events import EstimateEvent, FindingEvent, HistogramEvent, Part, Units
from probe_engine.report import (
    AdamwEstimate,
    AdamwParts,
    Baselines,
    Estimates,
    Histogram,
    Histograms,
    Influence,
)
from probe_engine.stages import Stage
from probe_engine.stages.contributions import dots_with_sums, row_dots
from probe_engine.stages.measure import ROLES, Measured
from probe_engine.stages.own_step import OwnStep
from probe_engine.stages.rows import completed
from probe_engine.types import Policy, Role


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


def estimate(eta: float, measured: Measured) -> Stage[Estimates]:
    """U- and V-statistic, split estimate, the own step, baselines, influence matrix, histograms."""
    scalars = measured.scalars
    sizes: dict[Role, int] = {r: sum(u.role == r for u in scalars) for r in ROLES}
    dots = row_dots(scalars, sizes)
    s, t, r = dots.s, dots.t, dots.r
    diagonal, x_dots, y_dots = dots_with_sums(scalars)

    rows = tuple(
        completed(row, eta=eta, s=s.get(row.id), t=t.get(row.id), r=r.get(row.id)) for row in measured.rows
    )
    yield Units(rows=list(rows))

    estimates = Estimates(
        u_statistic=u_statistic(_tensor(r.values()), eta, measured.pairs) if r else None,
        v_statistic=v_statistic(diagonal, x_dots, y_dots, eta),
        split=split_estimate(_tensor(s.values()), _tensor(t.values()), eta) if s and t else None,
        adamw=None if measured.own is None else _adamw(measured.own),
        baselines=_baselines(measured),
    )
    yield EstimateEvent(estimates=estimates)
    yield HistogramEvent(
        histograms=Histograms(
            s=_histogram(row.contribution_s for row in rows), r=_histogram(row.contribution_r for row in rows)
        )
    )
    if measured.pairs is not None:
        yield Part(influence=Influence(ids=[u.id for u in scalars], K=(eta * measured.pairs).tolist()))
    if estimates.u_statistic is not None:
        yield FindingEvent(finding=checks.interval(estimates.u_statistic))
        yield FindingEvent(finding=checks.degeneracy(estimates.u_statistic))
        x_shares, y_shares = map(_shares, one_sided(diagonal, x_dots, y_dots))
        prompts = {row.id: row.prompt for row in rows}
        yield FindingEvent(finding=checks.concentration([u.id for u in scalars], x_shares, y_shares, prompts))
    return estimates


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


def _baselines(measured: Measured) -> Baselines:
    """The zero-cost predictors of method.md §7, over all response tokens of the batch."""
    responses = [r for unit in measured.tokens for r in unit]
    tokens = TokenStatistics.joined(responses)
    advantages = torch.cat([o.advantages for o in measured.objectives])
    by_token = advantages.repeat_interleave(torch.tensor([len(r) for r in responses]))
    return Baselines(
        covariance=covariance(tokens.log_probs, by_token), discriminant=discriminant(tokens, by_token)
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
