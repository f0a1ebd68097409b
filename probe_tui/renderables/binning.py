"""Which bins of a histogram are drawn in which column."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from itertools import pairwise

from probe_engine.report import Histogram
from probe_tui.renderables.axis import Axis, spans

THINNEST = 1e-9
"""Columns; a histogram that is thinner on its axis is one bar a side."""


@dataclass(frozen=True)
class Bar:
    """Bins drawn as one."""

    first: int
    last: int
    count: int
    lo: float
    hi: float

    def among(self, bins: tuple[int, int] | None) -> bool:
        """Is one of its bins in first … last?"""
        return bins is not None and self.first <= bins[1] and bins[0] <= self.last


@dataclass(frozen=True)
class Plot:
    """The bars of a histogram on an axis."""

    axis: Axis
    bars: tuple[Bar, ...]
    columns: tuple[Bar | None, ...]
    """The bar in each column of the axis."""


def plot_bins(h: Histogram, columns: int, axis: tuple[float, float] | None = None) -> Plot | None:
    """Lays bars over columns: a column shows the bar that its middle lies in.

    Args:
        columns: how many.
        axis: lowest and highest value; default, and where it is no range: the histogram's own.

    Returns:
        None where the histogram itself has no range.
    """
    if not drawable(h):
        return None
    lo, hi = axis if axis is not None and spans(*axis) else (h.edges[0], h.edges[-1])
    scale = Axis(lo, hi, max(columns, 1))
    bars = _bars(h, scale)
    starts = [bar.lo for bar in bars]
    seen: list[Bar | None] = []
    for middle in map(scale.centre, range(scale.width)):
        index = bisect_right(starts, middle) - 1
        seen.append(bars[index] if index >= 0 and middle <= bars[index].hi else None)
    drawn = set(seen)
    for bar in bars:
        # A bar too thin to hold the middle of a column must not vanish: the higher one is seen.
        if bar not in drawn and bar.count and lo < bar.hi and bar.lo < hi:
            column = scale.column(bar.lo / 2 + bar.hi / 2)
            there = seen[column]
            if there is None or there.count < bar.count:
                seen[column] = bar
    return Plot(scale, bars, tuple(seen))


def drawable(h: Histogram) -> bool:
    """Has it bins, and finite, ascending edges around them?"""
    edges = h.edges
    return (
        len(edges) == len(h.counts) + 1 >= 2
        and spans(edges[0], edges[-1])
        and all(a <= b for a, b in pairwise(edges))
    )


def clamped(h: Histogram, bins: tuple[int, int]) -> tuple[int, int]:
    """First and last of some bins: in order, and among those there are."""
    first, last = (min(max(b, 0), len(h.counts) - 1) for b in sorted(bins))
    return first, last


def _bars(h: Histogram, axis: Axis) -> tuple[Bar, ...]:
    """As many bins a bar as it takes for a bar to be as wide as a column; bars start afresh at 0."""
    bins = len(h.counts)
    columns = (axis.fraction(h.edges[-1]) - axis.fraction(h.edges[0])) * axis.width
    # A shade less: rounding must not turn one bin a column into two.
    together = min(max(math.ceil(bins / max(columns, THINNEST) - 1e-9), 1), bins)
    zero = min(bisect_left(h.edges, 0.0), bins)
    cuts = sorted({0, bins, *range(zero % together, bins, together)})
    return tuple(Bar(a, b - 1, sum(h.counts[a:b]), h.edges[a], h.edges[b]) for a, b in pairwise(cuts))
