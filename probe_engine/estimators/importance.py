"""The realized change ΔĤ from re-scored responses, by importance sampling.

N             responses, flat
S, S⁺         log-probability of a response before and after the step, nats     [N]
w             e^{S⁺ − S}                                                        [N]
λ             length weight of the probed entropy                               [N]
p             share of a response in the batch's mean, Σp = 1                   [N]
u, B          unit of a response, number of units; a unit's shares sum to 1/B

With equal sizes p = 1/N and the formulas below are those of method.md (13)–(15).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from arviz_stats.base import array_stats
from torch import Tensor

ESS_WARN, ESS_FAIL = 0.5, 0.3
KHAT_FAIL = 1.0
"""From k̂ = 1 on, the weights have no mean."""
EVEN = 0.9
"""ESS/N from which no response counts much more than another. k̂ is a shape without a scale: of 48 normal
log-weights, however small, one fit in six lies above its threshold."""
SMALLEST_TAIL = 25
"""PSIS fits the largest fifth of the weights and needs 5 of them."""

Level = Literal["ok", "warn", "fail"]


@dataclass(frozen=True, eq=False)
class Samples:
    """Re-scored responses, valid once built; NaN and infinite log-probabilities are let through.

    Raises:
        ValueError: shapes that differ, shares that are not a mean over units, a unit without responses,
            a prompt in two units or with one response.
    """

    S: Tensor
    """[N], nats."""
    S_plus: Tensor
    """[N], nats."""
    lam: Tensor
    """[N], λ."""
    weight: Tensor
    """[N], p: share in the mean over units of means over prompts of means over responses."""
    unit: Tensor
    """[N], long, 0 … B−1."""
    group: Tensor
    """[N], long, the prompt."""

    def __post_init__(self) -> None:
        fields = (self.S, self.S_plus, self.lam, self.weight, self.unit, self.group)
        shapes = {tuple(f.shape) for f in fields}
        if len(shapes) != 1 or self.S.dim() != 1 or not len(self.S):
            raise ValueError(f"expected one number a response in each field, got shapes {sorted(shapes)}")
        if sorted(set(self.unit.tolist())) != list(range(self.B)):
            raise ValueError("units must be numbered 0 … B−1, each with a response or more")
        shares = self.unit_sums(torch.ones_like(self.p))
        if not bool((self.p > 0).all()) or float((shares * self.B - 1).abs().max()) > 1e-5:
            raise ValueError(
                f"each unit's weights must be positive and sum to 1/{self.B}, got {shares.tolist()}"
            )
        pairs = set(zip(self.unit.tolist(), self.group.tolist(), strict=True))
        if len(pairs) != len(set(self.group.tolist())):
            raise ValueError("a prompt belongs to one unit, got one in two")
        if int(self.group.bincount()[self.group].min()) < 2:
            raise ValueError("a prompt needs 2 responses or more: one has no leave-one-out mean")

    @property
    def N(self) -> int:
        """Number of responses."""
        return len(self.S)

    @cached_property
    def B(self) -> int:
        """Number of units."""
        return int(self.unit.max()) + 1

    @cached_property
    def p(self) -> Tensor:
        """`weight` in float64, [N]."""
        return self.weight.double()

    @cached_property
    def log_w(self) -> Tensor:
        """S⁺ − S, float64 [N]."""
        return self.S_plus.double() - self.S.double()

    def unit_sums(self, values: Tensor) -> Tensor:
        """Σ_{i∈u} p_i·values_i, float64 [B]."""
        return torch.zeros(self.B, dtype=torch.float64, device=values.device).index_add(
            0, self.unit, self.p * values
        )


@dataclass(frozen=True, eq=False)
class Change:
    """A measured entropy change with its error and its weights' diagnostics."""

    delta_h: float
    """ΔĤ."""
    se: float | None
    """Over units; None at B = 1."""
    h_before: float
    """Ĥ."""
    h_after: float
    """Ĥ⁺."""
    d_units: Tensor
    """[B], each unit's share: their mean is ΔĤ."""
    ess: float
    """Effective sample size, responses."""
    ess_fraction: float
    """ESS/N."""
    khat: float | None
    """Pareto k̂ of the raw weights; None where no tail can be fitted."""
    n: int
    """N."""


def snis(samples: Samples) -> Change:
    """Self-normalised importance sampling, method.md (13), with the paired influence's SE (14).

    ŵ = pw/Σpw; ΔĤ = −Σŵ λS⁺ + Σp λS.
    """
    return _self_normalised(samples, samples.log_w, pareto_khat(samples.log_w))


def psis(samples: Samples) -> Change:
    """`snis` with Pareto-smoothed weights, method.md (17); with the raw ones where no tail can be fitted."""
    smoothed = _smoothed(samples.log_w)
    if smoothed is None:
        return _self_normalised(samples, samples.log_w, None)
    return _self_normalised(samples, *smoothed)


def matched(samples: Samples) -> Change:
    """Unbiased, and to first order the prediction itself on these very samples, method.md (15).

    d = −[ wλS⁺ − λS − b(w − 1) ], b the mean of (S + 1)λ over the other responses of the prompt.
    It checks the calculus of the prediction; it shares the prediction's sampling error.
    """
    S, S_plus, lam = samples.S.double(), samples.S_plus.double(), samples.lam.double()
    b = leave_one_out_mean((S + 1) * lam, samples.group)
    # −[ λ(S⁺ − S) + (w − 1)(λS⁺ − b) ]: nothing cancels as the step shrinks.
    d = -(lam * samples.log_w + torch.expm1(samples.log_w) * (lam * S_plus - b))
    h_before = float((samples.p * -lam * S).sum())
    delta_h = float((samples.p * d).sum())
    return change(
        samples,
        delta_h=delta_h,
        h_before=h_before,
        h_after=h_before + delta_h,
        d_units=samples.B * samples.unit_sums(d),
        ess=ess(samples.log_w, samples.p),
        khat=pareto_khat(samples.log_w),
    )


def ess(log_w: Tensor, weight: Tensor) -> float:
    """Effective sample size N·(Σpw)²/(Σp·Σpw²): (Σw)²/Σw² of method.md (13) where all shares are equal.

    Unequal shares alone cost nothing: without a step it is N.

    Args:
        log_w: [N], log w.
        weight: [N], p, up to a factor.

    Returns:
        1 … N responses, or NaN where a weight is NaN or all are 0.
    """
    w, p = (log_w.double() - log_w.max()).exp(), weight.double()
    return float(len(w) * (p * w).sum() ** 2 / (p.sum() * (p * w * w).sum()))


def unit_ess(samples: Samples) -> Tensor:
    """`ess` of each unit's responses by themselves, float64 [B]."""
    members = [samples.unit == u for u in range(samples.B)]
    return torch.tensor([ess(samples.log_w[m], samples.p[m]) for m in members], dtype=torch.float64)


def pareto_khat(log_w: Tensor) -> float | None:
    """Pareto k̂, the tail index of the weights, method.md (17).

    Args:
        log_w: [N], log w.

    Returns:
        k̂, or None where no tail can be fitted: N < 25, weights that are constant, tied or not finite.
    """
    fit = _smoothed(log_w)
    return None if fit is None else fit[1]


def ess_status(ess_fraction: float) -> Level:
    """method.md (18): ESS/N below 0.5 warns, below 0.3 (or not a number) fails."""
    if not ess_fraction >= ESS_FAIL:
        return "fail"
    return "ok" if ess_fraction >= ESS_WARN else "warn"


def khat_threshold(n: int) -> float:
    """min(1 − 1/log₁₀N, 0.7), method.md (18): above it the estimate's variance is not under control."""
    return min(1 - 1 / math.log10(n), 0.7)


def khat_status(khat: float | None, n: int, ess_fraction: float) -> Level:
    """method.md (18): k̂ above its threshold warns, from 1 on it fails; no k̂ is no objection.

    Nor is any k̂ where the weights are even (ESS/N ≥ 0.9).
    """
    if khat is None or ess_fraction >= EVEN:
        return "ok"
    if khat >= KHAT_FAIL:
        return "fail"
    return "warn" if khat > khat_threshold(n) else "ok"


def _self_normalised(samples: Samples, log_w: Tensor, khat: float | None) -> Change:
    p = samples.p
    before = -samples.lam.double() * samples.S.double()
    after = -samples.lam.double() * samples.S_plus.double()
    w_hat = torch.softmax(p.log() + log_w, dim=0)
    h_before, h_after = (p * before).sum(), (w_hat * after).sum()
    # Influence of a response on ΔĤ, method.md (14); Σpψ = 0.
    psi = w_hat / p * (after - h_after) - (before - h_before)
    delta_h = float(h_after - h_before)
    return change(
        samples,
        delta_h=delta_h,
        h_before=float(h_before),
        h_after=float(h_after),
        d_units=samples.B * samples.unit_sums(psi) + delta_h,
        ess=ess(log_w, p),
        khat=khat,
    )


def change(
    samples: Samples,
    *,
    delta_h: float,
    h_before: float,
    h_after: float,
    d_units: Tensor,
    ess: float,
    khat: float | None,
) -> Change:
    """A change with the standard error of its units' shares."""
    return Change(
        delta_h=delta_h,
        se=math.sqrt(float(d_units.var()) / samples.B) if samples.B > 1 else None,
        h_before=h_before,
        h_after=h_after,
        d_units=d_units,
        ess=ess,
        ess_fraction=ess / samples.N,
        khat=khat,
        n=samples.N,
    )


def leave_one_out_mean(values: Tensor, group: Tensor) -> Tensor:
    """Mean of `values` over the other members of each one's group.

    Args:
        values: [N] or [N, T].
        group: [N], long; two members or more each.
    """
    count = group.bincount().view(-1, *(1,) * (values.dim() - 1))
    sums = values.new_zeros(len(count), *values.shape[1:]).index_add(0, group, values)
    return (sums[group] - values) / (count[group] - 1)


def _smoothed(log_w: Tensor) -> tuple[Tensor, float] | None:
    """Pareto-smoothed log weights [N] (normalised to Σw = 1) and k̂; None where no tail can be fitted."""
    log_w = log_w.detach().double()
    if len(log_w) < SMALLEST_TAIL or not bool(log_w.isfinite().all()) or bool((log_w == log_w[0]).all()):
        return None
    # Ties at the tail's foot divide 0 by 0; what comes of it is not finite and is dropped below.
    with np.errstate(all="ignore"):
        try:
            # arviz smooths the tail of −x: it was written for log-likelihoods.
            smoothed, khat = array_stats.psislw(-log_w.cpu().numpy())
        except ValueError:  # all weights of the tail are the same
            return None
    result = torch.from_numpy(np.asarray(smoothed)).to(log_w.device)
    if not bool(result.isfinite().all()) or not math.isfinite(khat):
        return None
    return result, float(khat)
