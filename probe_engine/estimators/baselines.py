"""Zero-cost predictors of the entropy change from the literature: compare sign and rank, not scale."""

from __future__ import annotations

from torch import Tensor


def covariance(logps: Tensor, advantages: Tensor) -> float:
    """−mean_t (A_t − Ā)(ℓ_t − ℓ̄): entropy falls where likely tokens are rewarded (method.md §7).

    Centred over the batch's tokens. Source: arXiv 2505.22617.

    Args:
        logps: [T], ℓ_t = log π(y_t | …) of every response token of the batch, nats.
        advantages: [T], the advantage of the token's response.

    Returns:
        The prediction, in the advantage's unit times nats; NaN without tokens.
    """
    ell, A = logps.double(), advantages.double()
    return -float(((A - A.mean()) * (ell - ell.mean())).mean())
