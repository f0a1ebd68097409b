"""The realized change ΔĤ by importance sampling from re-scored responses; symbols as in `rescored`.

With equal sizes p = 1/N and the formulas below are those of method.md (13)–(15).
"""

from __future__ import annotations

import torch
from torch import Tensor

from probe_engine.estimators.change import Change
from probe_engine.estimators.rescored import Samples, leave_one_out_mean
from probe_engine.estimators.weights import ess


def snis(samples: Samples) -> Change:
    """Self-normalised importance sampling, method.md (13), with the paired influence's SE (14).

    ŵ = pw/Σpw; ΔĤ = −Σŵ λS⁺ + Σp λS.
    """
    return _self_normalised(samples, samples.log_w)


def psis(samples: Samples) -> Change:
    """`snis` with Pareto-smoothed weights, method.md (17); with the raw ones where no tail can be fitted."""
    return _self_normalised(samples, samples.log_w if samples.smoothed is None else samples.smoothed[0])


def matched(samples: Samples) -> Change:
    """Unbiased, and to first order the prediction itself on these very samples, method.md (15).

    d = −[ wλS⁺ − λS − b(w − 1) ], b the mean of (S + 1)λ over the other responses of the prompt.
    It checks the calculus of the prediction; it shares the prediction's sampling error.
    """
    S, S_plus, lam = samples.S.double(), samples.S_plus.double(), samples.lam.double()
    b = leave_one_out_mean((S + 1) * lam, samples.group)
    # −[ λ(S⁺ − S) + (w − 1)(λS⁺ − b) ]: nothing cancels as the step shrinks.
    d = -(lam * samples.log_w + torch.expm1(samples.log_w) * (lam * S_plus - b))
    return Change.of(samples, d, before=-lam * S)


def _self_normalised(samples: Samples, log_w: Tensor) -> Change:
    p = samples.p
    before = -samples.lam.double() * samples.S.double()
    after = -samples.lam.double() * samples.S_plus.double()
    w_hat = torch.softmax(p.log() + log_w, dim=0)
    h_before, h_after = (p * before).sum(), (w_hat * after).sum()
    # Influence of a response on ΔĤ, method.md (14); Σpψ = 0.
    psi = w_hat / p * (after - h_after) - (before - h_before)
    return Change(
        d_units=samples.B * samples.unit_sums(psi) + (h_after - h_before),
        h_before=float(h_before),
        n=samples.N,
        ess=ess(log_w, p),
        khat=samples.khat,
    )
