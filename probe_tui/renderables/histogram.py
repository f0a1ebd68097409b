"""A histogram in eighth blocks, with zero marked and everything counted."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from dataclasses import dataclass

from rich.cells import cell_len
from rich.text import Text

from probe_engine.report import Histogram
from probe_tui.renderables.axis import Axis, labels, spans, ticks
from probe_tui.renderables.cells import Cell, cut, placard, row, stretched
from probe_tui.renderables.numbers import count, number
from probe_tui.renderables.palette import Palette

BLOCKS = " ▁▂▃▄▅▆▇█"
GUTTER = 6
"""Columns of the count axis. Fixed, so that histograms over one another line up."""


@dataclass(frozen=True)
class ValueRange:
    """The values of some bins, which are [a, b) but for the last one, [a, b]."""

    lo: float
    hi: float
    closed: bool
    """Does it hold `hi` itself?"""

    def __contains__(self, value: float) -> bool:
        return self.lo <= value < self.hi or (self.closed and value == self.hi)


def histogram(
    h: Histogram | None,
    *,
    width: int,
    height: int,
    title: str,
    unit: str,
    palette: Palette,
    axis: tuple[float, float] | None = None,
    selected: tuple[int, int] | None = None,
    log_counts: bool = False,
    empty_reason: str = "",
) -> list[Text]:
    """`height` rows: title, bars over the value axis, its labels, and in words what lies outside of it.

    Where bins are finer than columns some are drawn as one bar; none of those reaches across 0.

    Args:
        unit: of the values.
        axis: lowest and highest value drawn (see `shared_edges`); default: the histogram's own.
        selected: first and last bin to highlight; the title then has their range and count.
        log_counts: bars as high as log(1 + count).
        empty_reason: said where there is nothing to draw.
    """
    if h is None or not _total(h):
        return placard(title, empty_reason or "nothing yet", width=width, height=height, style=palette.muted)
    plot = _plot(h, width, axis)
    if plot is None:
        reason = "its edges are not finite and ascending, so it has no axis"
        return placard(title, reason, width=width, height=height, style=palette.muted)

    head = _title(h, title, unit, selected, log_counts, width, palette)
    notes = _notes(h, plot, unit)
    foot = [
        _axis_row(plot, selected, width, palette),
        row(width, [("count".rjust(GUTTER - 1) + " ", palette.muted), (labels(plot.axis, unit), "")]),
        *([row(width, [(notes, palette.warn)])] if notes else []),
    ]
    if height < 2 + len(foot):
        foot = foot[1:]  # the axis' labels say more than its line
    bars = _bar_rows(plot, max(height - 1 - len(foot), 1), selected, log_counts, width, palette)
    return stretched([head, *bars, *foot], height)


def shared_edges(hs: Iterable[Histogram | None]) -> tuple[float, float] | None:
    """An axis that holds them all; None where none of them has one."""
    ends = [(h.edges[0], h.edges[-1]) for h in hs if h is not None and _drawable(h)]
    return (min(lo for lo, _ in ends), max(hi for _, hi in ends)) if ends else None


def bins_at(
    h: Histogram, column: int, width: int, axis: tuple[float, float] | None = None
) -> tuple[int, int] | None:
    """First and last bin of the bar drawn in a column of `histogram(…, width=width)`."""
    plot = _plot(h, width, axis)
    if plot is None or not 0 <= column - GUTTER < plot.axis.width:
        return None
    bar = plot.columns[column - GUTTER]
    return None if bar is None else (bar.first, bar.last)


def bin_at(h: Histogram, column: int, width: int, axis: tuple[float, float] | None = None) -> int | None:
    """The (first) bin drawn in a column of `histogram(…, width=width)`."""
    bins = bins_at(h, column, width, axis)
    return None if bins is None else bins[0]


def value_range(h: Histogram, selected: tuple[int, int]) -> ValueRange:
    """What values the selected bins hold.

    Raises:
        ValueError: a histogram without bins.
    """
    if not _drawable(h):
        raise ValueError("expected a histogram with finite, ascending edges")
    first, last = _clamped(h, selected)
    return ValueRange(h.edges[first], h.edges[last + 1], closed=last == len(h.counts) - 1)


@dataclass(frozen=True)
class _Bar:
    """Bins drawn as one."""

    first: int
    last: int
    count: int
    lo: float
    hi: float

    def among(self, bins: tuple[int, int] | None) -> bool:
        return bins is not None and self.first <= bins[1] and bins[0] <= self.last

    def style(self, palette: Palette) -> str:
        if self.hi <= 0:
            return palette.falls
        return palette.rises if self.lo >= 0 else palette.zero


@dataclass(frozen=True)
class _Plot:
    axis: Axis
    bars: tuple[_Bar, ...]
    columns: tuple[_Bar | None, ...]
    """The bar in each column of the axis."""


def _plot(h: Histogram, width: int, axis: tuple[float, float] | None) -> _Plot | None:
    if not _drawable(h):
        return None
    lo, hi = axis if axis is not None and spans(*axis) else (h.edges[0], h.edges[-1])
    scale = Axis(lo, hi, max(width - GUTTER, 1))
    bars = _bars(h, scale)
    starts = [bar.lo for bar in bars]
    columns: list[_Bar | None] = []
    for centre in map(scale.centre, range(scale.width)):
        index = bisect_right(starts, centre) - 1
        columns.append(bars[index] if index >= 0 and centre <= bars[index].hi else None)
    drawn = set(columns)
    for bar in bars:
        # A bar too thin to hold the centre of a column must not vanish: the higher one is seen.
        if bar not in drawn and bar.count and lo <= bar.hi and bar.lo <= hi:
            column = scale.column(bar.lo / 2 + bar.hi / 2)
            there = columns[column]
            if there is None or there.count < bar.count:
                columns[column] = bar
    return _Plot(scale, bars, tuple(columns))


def _drawable(h: Histogram) -> bool:
    edges = h.edges
    return (
        len(edges) == len(h.counts) + 1 >= 2
        and spans(edges[0], edges[-1])
        and all(a <= b for a, b in zip(edges, edges[1:], strict=False))
    )


def _bars(h: Histogram, axis: Axis) -> tuple[_Bar, ...]:
    """As many bins a bar as it takes for a bar to be as wide as a column; bars start afresh at 0."""
    bins = len(h.counts)
    columns = (axis.fraction(h.edges[-1]) - axis.fraction(h.edges[0])) * axis.width
    # A shade less: rounding must not turn one bin a column into two.
    together = min(max(math.ceil(bins / max(columns, TINY_COLUMNS) - 1e-9), 1), bins)
    zero = min(bisect_left(h.edges, 0.0), bins)
    cuts = sorted({0, bins, *range(zero % together, bins, together)})
    return tuple(
        _Bar(a, b - 1, sum(h.counts[a:b]), h.edges[a], h.edges[b]) for a, b in zip(cuts, cuts[1:], strict=False)
    )


TINY_COLUMNS = 1e-9
"""A histogram narrower than this on its axis is one bar a side."""


def _clamped(h: Histogram, selected: tuple[int, int]) -> tuple[int, int]:
    """In order, and among the bins."""
    first, last = (min(max(b, 0), len(h.counts) - 1) for b in sorted(selected))
    return first, last


def _total(h: Histogram) -> int:
    return sum(h.counts) + h.nan + h.underflow + h.overflow


def _title(
    h: Histogram,
    title: str,
    unit: str,
    selected: tuple[int, int] | None,
    log_counts: bool,
    width: int,
    palette: Palette,
) -> Text:
    said = f"{_total(h)} values{', log counts' if log_counts else ''}"
    style = palette.muted
    if selected is not None:
        first, last = _clamped(h, selected)
        said = (
            f"{number(h.edges[first])} … {number(h.edges[last + 1])} {unit}: "
            f"{sum(h.counts[first : last + 1])} of {_total(h)}"
        )
        style = palette.selected
    # The numbers are worth more than the words: the title gives way.
    title = cut(title, max(width - cell_len(said) - 2, 0))
    return row(width, [(title, palette.accent), ("  " if title else "", ""), (said, style)])


def _notes(h: Histogram, plot: _Plot, unit: str) -> str:
    """In words, what is not on the axis."""
    axis = plot.axis
    below = h.underflow + sum(bar.count for bar in plot.bars if bar.hi < axis.lo)
    above = h.overflow + sum(bar.count for bar in plot.bars if bar.lo > axis.hi)
    together = max(bar.last - bar.first + 1 for bar in plot.bars)
    said = [
        f"{h.nan} NaN" if h.nan else "",
        f"{below} below {number(axis.lo)}" if below else "",
        f"{above} above {number(axis.hi)} {unit}" if above else "",
        f"{together} bins a bar" if together > 1 else "",
    ]
    return " · ".join(filter(None, said))


def _bar_rows(
    plot: _Plot,
    height: int,
    selected: tuple[int, int] | None,
    log_counts: bool,
    width: int,
    palette: Palette,
) -> list[Text]:
    top = max(bar.count for bar in plot.bars)
    rows = []
    for floor in range(height - 1, -1, -1):
        label = count(top) + "┤" if floor == height - 1 else "│"
        cells: list[Cell] = [(label.rjust(GUTTER), palette.muted)]
        for column, bar in enumerate(plot.columns):
            level = 0 if bar is None else _eighths(bar.count, top, height, log_counts)
            glyph = BLOCKS[min(max(level - 8 * floor, 0), 8)]
            style = palette.zero if bar is None else bar.style(palette)
            if glyph == " " and column == plot.axis.zero:
                glyph, style = "┊", palette.zero
            if bar is not None and bar.among(selected):
                style = f"{style} {palette.selected}"
            cells.append((glyph, style))
        rows.append(row(width, cells))
    return rows


def _eighths(value: int, top: int, height: int, log_counts: bool) -> int:
    """A bar's height in eighths of a row; what is there at all is seen."""
    if value <= 0:
        return 0
    fraction = math.log1p(value) / math.log1p(top) if log_counts else value / top
    return max(round(fraction * 8 * height), 1)


def _axis_row(plot: _Plot, selected: tuple[int, int] | None, width: int, palette: Palette) -> Text:
    cells: list[Cell] = [("0┼".rjust(GUTTER), palette.muted)]
    for glyph, bar in zip(ticks(plot.axis), plot.columns, strict=True):
        chosen = bar is not None and bar.among(selected)
        cells.append(("━" if chosen else glyph, palette.accent if chosen else palette.muted))
    return row(width, cells)
