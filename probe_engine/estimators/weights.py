"""How evenly importance weights are spread: effective sample size and Pareto k̂ (method.md (13), (17), (18)).

N   responses
w   weight of each, e^{S⁺ − S}       [N]
p   its share in the batch's mean    [N]
"""

from __future__ import annotations

import math
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


def ess_fraction_without(log_w: Tensor, weight: Tensor, unit: Tensor) -> Tensor:
    """ESS/N of the other units' responses, where each unit in turn is left out: who eats the ESS.

    A unit's own ESS does not tell: it stays whole where all of its weights are equally large.

    Args:
        log_w: [N], log w.
        weight: [N], p, up to a factor.
        unit: [N], long, 0 … B−1.

    Returns:
        [B], 0 … 1; NaN where a weight is NaN or nothing is left.
    """
    w, p = (log_w.double() - log_w.max()).exp(), weight.double()
    sums = p.new_zeros(int(unit.max()) + 1, 3).index_add(0, unit, torch.stack([p, p * w, p * w * w], 1))
    nothing = sums.new_zeros(1, 3)
    # What stands before and behind is added up: the total less a unit that has nearly all of it would cancel.
    before = torch.cat([nothing, sums[:-1]]).cumsum(0)
    others = before + torch.cat([sums[1:], nothing]).flip(0).cumsum(0).flip(0)
    return others[:, 1] ** 2 / (others[:, 0] * others[:, 2])


def ess_status(ess_fraction: float) -> Level:
    """method.md (18): ESS/N below 0.5 warns, below 0.3 (or not a number) fails."""
    if not ess_fraction >= ESS_FAIL:
        return "fail"
    return "ok" if ess_fraction >= ESS_WARN else "warn"


def pareto_khat(log_w: Tensor) -> float | None:
    """Pareto k̂, the tail index of the weights, method.md (17).

    Args:
        log_w: [N], log w.

    Returns:
        k̂, or None where no tail can be fitted: N < 25, weights that are constant, tied or not finite.
    """
    fit = smoothed(log_w)
    return None if fit is None else fit[1]


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


def degenerate(ess_fraction: float, khat: float | None, n: int) -> bool:
    """Whether ESS or k̂ is at fail: what these weights measure is not to be trusted, method.md (18)."""
    return "fail" in (ess_status(ess_fraction), khat_status(khat, n, ess_fraction))


def smoothed(log_w: Tensor) -> tuple[Tensor, float] | None:
    """Pareto-smoothed log weights [N] (normalised to Σw = 1) and k̂; None where no tail can be fitted."""
    log_w = log_w.detach().double()
    if len(log_w) < SMALLEST_TAIL or not bool(log_w.isfinite().all()) or bool((log_w == log_w[0]).all()):
        return None
    # Ties at the tail's foot divide 0 by 0; what comes of it is not finite and is dropped below.
    with np.errstate(all="ignore"):
        try:
            # arviz smooths the tail of −x: it was written for log-likelihoods.
            result, khat = array_stats.psislw(-log_w.cpu().numpy())
        except ValueError:  # all weights of the tail are the same
            return None
    weights = torch.from_numpy(np.asarray(result)).to(log_w.device)
    if not bool(weights.isfinite().all()) or not math.isfinite(khat):
        return None
    return weights, float(khat)
