"""Do two measures put the same things in the same order?"""

from __future__ import annotations

import torch
from torch import Tensor

FEWEST = 3
"""Pairs below which ranks say nothing: two can only agree or be opposed."""


def centred_ranks(x: Tensor) -> Tensor:
    """Ranks of unit length about their mean, so that a dot product is Spearman's ρ.

    Args:
        x: [n], on the CPU; equal entries share the mean of their ranks.

    Returns:
        float64 [n]; 0 where all entries are equal, or one is not finite.
    """
    if not bool(x.isfinite().all()):
        return torch.zeros(len(x), dtype=torch.float64)
    # As scipy.stats.rankdata, whose import takes a twentieth of the engine's start.
    _, place, counts = torch.unique(x, return_inverse=True, return_counts=True)
    ranks: Tensor = (counts.cumsum(0) - (counts - 1) / 2).double()[place]
    centred = ranks - ranks.mean()
    length = centred.norm()
    return centred / length if length else centred


def spearman(a: Tensor, b: Tensor) -> float | None:
    """Spearman's rank correlation ρ, of the pairs of which both are finite.

    Args:
        a, b: [n] each, on the CPU.

    Returns:
        −1 … 1, or None where fewer than three pairs are left, or a side is the same in all of them.
    """
    known = a.isfinite() & b.isfinite()
    if int(known.sum()) < FEWEST:
        return None
    u, v = centred_ranks(a[known]), centred_ranks(b[known])
    if not (bool(u.any()) and bool(v.any())):
        return None
    # Two unit vectors' product is beyond 1 by rounding at times.
    return max(-1.0, min(1.0, float(u @ v)))
