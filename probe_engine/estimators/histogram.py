"""Histograms for a sign: zero is always an edge, and outliers don't squeeze the rest into one bin."""

from __future__ import annotations

import torch
from torch import Tensor

from probe_engine.report import Histogram

BINS = 24
REACH = 5.0
"""Values farther than this many interquartile ranges beyond the quartiles count as underflow or overflow."""
TINY = 1e-300
"""Ranges below this can't be divided into bins of float64."""


def histogram(values: Tensor, bins: int | None = None, edges: Tensor | None = None) -> Histogram:
    """Counts `values` in bins of equal width, an inner edge at exactly 0.

    Bins are [a, b), the last one [a, b]. Σcounts + nan + underflow + overflow is the number of values.

    Args:
        values: [N]; NaN is counted apart, infinities are underflow and overflow.
        bins: how many; default 24. Values that are all 0 (or absent) get one bin either side of 0.
        edges: [bins + 1], ascending: counts in these instead, so that a histogram can grow.

    Raises:
        ValueError: fewer than 2 bins, or edges that don't ascend.
    """
    values = values.detach().double().flatten().cpu()
    if edges is None:
        edges = _edges(values[values.isfinite()], BINS if bins is None else bins)
    else:
        edges = edges.detach().double().cpu()
        if len(edges) < 2 or not bool((edges.diff() > 0).all()):
            raise ValueError(f"histogram edges must ascend, got {edges.tolist()}")
    inside = values[(values >= edges[0]) & (values <= edges[-1])]
    last = len(edges) - 2
    index = (torch.bucketize(inside, edges, right=True) - 1).clamp(max=last)
    return Histogram(
        edges=edges.tolist(),
        counts=torch.bincount(index, minlength=last + 1).tolist(),
        nan=int(values.isnan().sum()),
        underflow=int((values < edges[0]).sum()),
        overflow=int((values > edges[-1]).sum()),
        zeros=int((inside == 0).sum()),
    )


def _edges(finite: Tensor, bins: int) -> Tensor:
    if bins < 2:
        raise ValueError(f"a histogram that shows a sign needs 2 bins or more, got {bins}")
    low, high = _range(finite)
    scale = max(-low, high)
    if scale < TINY:
        return torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64)
    # Bins on either side of 0 in proportion to the reach of the values; one at least, so that 0 itself,
    # which a last bin would hold, is never counted with the negative values.
    left_share = (-low / scale) / (-low / scale + high / scale)
    left = min(max(round(bins * left_share), 1), bins - 1)
    right = bins - left
    width = max(-low / left, high / right)
    edges = width * torch.arange(-left, right + 1, dtype=torch.float64)
    # Rounding must not push the extreme values out.
    edges[0], edges[-1] = min(float(edges[0]), low), max(float(edges[-1]), high)
    return edges


def _range(finite: Tensor) -> tuple[float, float]:
    """Smallest and largest value that is no outlier, widened to hold 0."""
    if not len(finite):
        return 0.0, 0.0
    ordered = finite.sort().values
    # Order statistics: torch.quantile refuses more than 2^24 values.
    q1, q3 = float(ordered[(len(ordered) - 1) // 4]), float(ordered[-1 - (len(ordered) - 1) // 4])
    reach = REACH * (q3 - q1)
    low, high = float(ordered[0]), float(ordered[-1])
    if reach > 0:
        low, high = max(low, q1 - reach), min(high, q3 + reach)
    return min(low, 0.0), max(high, 0.0)
