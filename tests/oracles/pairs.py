"""The estimators of method.md §4 from the vectors themselves, written as they are defined."""

from __future__ import annotations

from itertools import permutations

import torch
from torch import Tensor


def dot_products(X: Tensor, PY: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Diagonal X_n·P Y_n, X_n·P ΣY and P Y_n·ΣX, each [B] (or [R, B] of batches), of X and PY [.., B, P]."""
    return (
        (X * PY).sum(-1),
        (X * PY.sum(-2, keepdim=True)).sum(-1),
        (PY * X.sum(-2, keepdim=True)).sum(-1),
    )


def kernel(X: Tensor, PY: Tensor, u: int, v: int) -> float:
    """h(u,v) of (5)."""
    return -0.5 * float(X[u] @ PY[v] + X[v] @ PY[u])


def u_over_pairs(X: Tensor, PY: Tensor) -> float:
    """U_cross: the mean of h over all pairs u ≠ v."""
    values = [kernel(X, PY, u, v) for u, v in permutations(range(len(X)), 2)]
    return sum(values) / len(values)


def jackknife_variance(X: Tensor, PY: Tensor) -> float:
    """(9) by deleting each unit and computing U_cross again."""
    B = len(X)
    kept = [[m for m in range(B) if m != n] for n in range(B)]
    refits = torch.tensor([u_over_pairs(X[k], PY[k]) for k in kept], dtype=torch.float64)
    return float((B - 1) / B * (refits - refits.mean()).square().sum())
