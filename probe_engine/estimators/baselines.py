"""Zero-cost predictors of the entropy change from the literature: compare sign and rank, not scale."""

from __future__ import annotations

from torch import Tensor

from probe_engine.estimators.token_statistics import TokenStatistics


def covariance(logps: Tensor, advantages: Tensor) -> Tensor:
    """Parts of −mean_t (A_t − Ā)(ℓ_t − ℓ̄): entropy falls where likely tokens are rewarded (method.md §8).

    Centred over the batch's tokens. Source: arXiv 2505.22617.

    Args:
        logps: [T], ℓ_t = log π(y_t | …) of every response token of the batch, nats.
        advantages: [T], the advantage of the token's response.

    Returns:
        What each token adds to the prediction, float64 [T], in the advantage's unit times nats.
    """
    ell, A = logps.double(), advantages.double()
    return -(A - A.mean()) * (ell - ell.mean()) / len(ell)


def discriminant(tokens: TokenStatistics, advantages: Tensor) -> Tensor:
    """Parts of −mean_t A_t (S_t − E_{a~π} S_a) with S_a = π_a (h + log π_a): entropy falls where tokens that
    are likelier than e^−h are rewarded (method.md §8). Source: arXiv 2602.03392.

    Args:
        tokens: every response token of the batch.
        advantages: [T], the advantage of the token's response.

    Returns:
        What each token adds to the prediction, float64 [T], in the advantage's unit times nats.
    """
    ell = tokens.log_probs.double()
    S = ell.exp() * (tokens.entropies.double() + ell)
    return -advantages.double() * (S - tokens.mean_discriminant.double()) / len(ell)
