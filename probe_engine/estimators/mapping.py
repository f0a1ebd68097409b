"""How sure is it that each optimizer state lies on its own parameter?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median

import torch
from scipy.stats import rankdata
from torch import Tensor

ENTRIES = 4096
"""Entries of a parameter that are compared: enough for a correlation to ±0.02."""


def mapping_correlation(exp_avg_sq: Sequence[Tensor], gradient: Sequence[Tensor]) -> float | None:
    """Median over parameters of the Spearman correlation of exp_avg_sq with gradient² (formats.md).

    Both say which entries of a parameter have large gradients, so a right match correlates and a permutation
    among equal shapes does not.

    Args:
        exp_avg_sq: Adam's v, one tensor a parameter.
        gradient: fresh gradients of the same parameters, of the same shapes.

    Returns:
        −1 … 1, or None where no parameter has two finite entries that differ in both.
    """
    correlations = [_spearman(v, g) for v, g in zip(exp_avg_sq, gradient, strict=True)]
    usable = [c for c in correlations if c is not None]
    return median(usable) if usable else None


def _spearman(v: Tensor, g: Tensor) -> float | None:
    a, b = _strided(v), _strided(g).square()
    finite = a.isfinite() & b.isfinite()
    ranks = torch.stack([torch.from_numpy(rankdata(x[finite].numpy())) for x in (a, b)])
    if ranks.shape[1] < 2:
        return None
    centred = ranks - ranks.mean(dim=1, keepdim=True)
    scale = float(centred[0].norm() * centred[1].norm())
    correlation = float(centred[0] @ centred[1]) / scale if scale else math.nan
    return correlation if math.isfinite(correlation) else None


def _strided(x: Tensor) -> Tensor:
    """At most ENTRIES entries, first to last; a stride that is no divisor of the row misses no column."""
    flat = x.detach().flatten()
    n, k = len(flat), min(len(flat), ENTRIES)
    index = torch.arange(k) * (n - 1) // max(k - 1, 1)
    return flat[index.to(flat.device)].double().cpu()
