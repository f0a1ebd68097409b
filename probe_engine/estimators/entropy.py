"""The length weights of the probed entropy and of the loss, and the weights of S in L_X and L_Y.

S     log-probability of a response, nats                    [G]
λ     length weight of the probed entropy                    [G]
κ     length weight of the trainer's loss                    [G]
c     leave-one-out coefficients, method.md (1)              [G]
A     advantages as the trainer used them                    [G]

X_n = Σ_g x_weights[g]·∇S[n,g] and Y_n = Σ_g y_weights[g]·∇S[n,g].
"""

from __future__ import annotations

import torch
from torch import Tensor


def length_weights(lengths: Tensor, weighting: str, l_max: int) -> Tensor:
    """λ of method.md §1: dr_grpo 1/L_max, sequence 1, per_token 1/L.

    Args:
        lengths: [N], response lengths, tokens.
        weighting: `dr_grpo` (H in nats per token slot), `sequence` (per sequence) or `per_token` (per token).
        l_max: L_max, tokens.

    Returns:
        λ, float64 [N].

    Raises:
        ValueError: an unknown weighting.
    """
    L = lengths.double()
    match weighting:
        case "dr_grpo":
            return torch.full_like(L, 1 / l_max)
        case "sequence":
            return torch.ones_like(L)
        case "per_token":
            return 1 / L
    raise ValueError(f"weighting: expected dr_grpo, sequence or per_token, got {weighting!r}")


def loss_weights(lengths: Tensor, loss_type: str, l_max: int, mean_length: float) -> Tensor:
    """κ of method.md §1: dr_grpo 1/L_max, grpo 1/L, dapo and bnpo 1/(mean response length).

    Args:
        lengths: [N], response lengths, tokens.
        loss_type: the trainer's.
        l_max: L_max, tokens.
        mean_length: mean response length of the batch, tokens.

    Returns:
        κ, float64 [N].

    Raises:
        ValueError: an unknown loss type.
    """
    L = lengths.double()
    match loss_type:
        case "dr_grpo":
            return torch.full_like(L, 1 / l_max)
        case "grpo":
            return 1 / L
        case "dapo" | "bnpo":
            return torch.full_like(L, 1 / mean_length)
    raise ValueError(f"loss type: expected dr_grpo, grpo, dapo or bnpo, got {loss_type!r}")


def loo_coefficients(S: Tensor, lam: Tensor) -> Tensor:
    """c_g = (S_g + 1)λ_g − mean_{h≠g} (S_h + 1)λ_h, method.md (1).

    A constant: the result carries no graph, else ∇L_X would gain a spurious second term.
    The "+1" comes from ∇(λSπ); it cancels where λ is constant and matters where it is not.

    Args:
        S: [G], nats.
        lam: [G], λ.

    Returns:
        c, float64 [G], detached.

    Raises:
        ValueError: G < 2, which has no leave-one-out mean.
    """
    G = len(S)
    if G < 2:
        raise ValueError(f"a leave-one-out mean needs 2 responses or more of a prompt, got {G}")
    a = (S.detach().double() + 1) * lam.detach().double()
    # a_g − mean_{h≠g} a_h = G/(G−1)·(a_g − mean a). The shift makes c exactly 0 for equal responses.
    shifted = a - a[0]
    return (shifted - shifted.mean()) * (G / (G - 1))


def x_weights(S: Tensor, lam: Tensor) -> Tensor:
    """Weights of S in L_X(n) = −(1/G) Σ_g c_g·S_g, method.md (2): −c/G, float64 [G]."""
    return -loo_coefficients(S, lam) / len(S)


def y_weights(advantages: Tensor, kappa: Tensor) -> Tensor:
    """Weights of S in L_Y(n) = (1/G) Σ_g A_g·κ_g·S_g, method.md (3): A·κ/G, float64 [G]."""
    return advantages.double() * kappa.double() / len(advantages)
