"""Are these samples the policy's? method.md (20).

At temperature 1 and with nothing cut off the distribution, −log π(y_t) − h_t are martingale differences
with variance Var_t, whatever stopping rule ended the responses.

ℓ     log π of a token, nats
β     inverse temperature; π_β ∝ π^β is what a sampler at temperature 1/β draws from
f(β)  Σ_t E_{π_β}[ℓ], rising, f′(β) = Σ_t Var_{π_β}[ℓ]
q     top-p: the sampler leaves out a token whose likelier ones have mass q or more
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicHermiteSpline
from scipy.optimize import brentq
from torch import Tensor

from probe_engine.estimators.token_statistics import INVERSE_TEMPERATURES, TokenStatistics

BETAS = np.array(INVERSE_TEMPERATURES)


@dataclass(frozen=True)
class TemperatureFit:
    """The sampling temperature, relative to the policy's own, under which the samples are likeliest."""

    temperature: float
    """T̂, within [1/3, 4]: the nearer end where the samples lie beyond"""
    se: float
    """T̂ divided by the standard deviation of Σ_t ℓ/T̂ under π_β̂; NaN for a deterministic policy"""
    gain: float
    """log-likelihood of the samples at T̂ less that at 1, nats. Chernoff: samples of the policy reach a
    gain of g on one side with probability e^−g or less, however skewed their surprises are."""


@dataclass(frozen=True)
class NucleusFit:
    """The smallest nucleus that holds every sample."""

    top_p: float
    """q̂, the largest mass that lies before a sampled token; samples of the policy reach almost to 1"""
    excluded_mass: float
    """Mean over tokens of the policy's probability outside that nucleus, over what is inside; unbiased for
    a sampler at top-p q̂, about 0 for samples of the policy"""
    se: float
    """Its standard error, from the spread over tokens"""
    gain: float
    """log-likelihood of the samples under this nucleus less that under the policy, nats, about"""


@dataclass(frozen=True)
class OnPolicyTest:
    """The test over some tokens."""

    tokens: int
    z: float
    """Σ_t (−ℓ_t − h_t) / √ΣVar_t: above 0, samples are less likely than the policy's; NaN without variance"""
    fit: TemperatureFit
    nucleus: NucleusFit


def on_policy(tokens: TokenStatistics) -> OnPolicyTest:
    """All of (20) for some responses.

    Args:
        tokens: at least one.
    """
    return OnPolicyTest(len(tokens), z_score(tokens), fitted_temperature(tokens), fitted_nucleus(tokens))


def z_score(tokens: TokenStatistics) -> float:
    """z = Σ_t (−log π(y_t) − h_t) / √ΣVar_t, method.md (20); NaN where the policy is deterministic."""
    surplus = -tokens.log_probs.double() - tokens.entropies.double()
    variance = float(tokens.surprise_variances.double().sum())
    return float(surplus.sum()) / variance**0.5 if variance > 0 else float("nan")


def fitted_temperature(tokens: TokenStatistics) -> TemperatureFit:
    """Maximum likelihood of β: the root of f(β) = Σ_t ℓ_t, with f interpolated from its values and slopes."""
    seen = float(tokens.log_probs.double().sum())
    f = CubicHermiteSpline(BETAS, _summed(tokens.means), _summed(tokens.variances))
    low, high = float(BETAS[0]), float(BETAS[-1])
    if seen <= f(low):
        beta = low
    elif seen >= f(high):
        beta = high
    else:
        beta = float(brentq(lambda b: float(f(b)) - seen, low, high))
    information = float(f.derivative()(beta))
    return TemperatureFit(
        temperature=1 / beta,
        # Var(Σ ℓ/T̂) = β̂²·f′(β̂), and SE(T̂) = SE(β̂)/β̂².
        se=1 / (beta**2 * information**0.5) if information > 0 else float("nan"),
        gain=max(0.0, seen * (beta - 1) - float(f.integrate(1.0, beta))),
    )


def fitted_nucleus(tokens: TokenStatistics) -> NucleusFit:
    """q̂ = max_t (mass ahead of y_t), and the mass outside it.

    Spread y_t evenly over its own stretch [ahead, ahead + π(y_t)] of the cumulative probability: the part
    e_t of it beyond q has expectation 1 − q under the policy, and 1 − q/M_t under nucleus sampling, M_t ≥ q
    the mass of the nucleus. So (1 − q − e_t)/q has expectation (1 − M_t)/M_t there: no sort is needed.
    """
    ahead, p = tokens.ahead.double(), tokens.log_probs.double().exp()
    q = float(ahead.max())
    if q <= 0:  # greedy: only the likeliest token was ever drawn
        missed = float((1 / p - 1).mean())
        return NucleusFit(0.0, missed, 0.0, float(-p.log().sum()))
    beyond = ((ahead + p - q) / p).clamp(0, 1)
    missed = (1 - q - float(beyond.mean())) / q
    T = len(tokens)
    return NucleusFit(q, missed, float(beyond.std(correction=0)) / (q * T**0.5), T * missed)


def _summed(per_token: Tensor) -> NDArray[np.float64]:
    """Σ_t, [K]"""
    return per_token.double().sum(0).numpy()
