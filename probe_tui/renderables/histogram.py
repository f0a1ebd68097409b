"""A histogram in eighth blocks, with zero marked and everything counted."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from rich.cells import cell_len
from rich.text import Text

from probe_engine.report import Histogram
from probe_tui.renderables.axis import labels, ticks
from probe_tui.renderables.binning import Bar, Plot, clamped, drawable, plot_bins
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
    symbol: str = "",
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
        symbol: stands for the title where that has no room.
        unit: of the values.
        axis: lowest and highest value drawn (see `shared_edges`); default: the histogram's own.
        selected: first and last bin to highlight, in either order; the title then has their range and count.
        log_counts: bars as high as log(1 + count).
        empty_reason: said where there is nothing to draw.
    """
    if h is None or not _total(h):
        return placard(title, empty_reason or "nothing yet", width=width, height=height, style=palette.muted)
    plot = plot_bins(h, width - GUTTER, axis)
    if plot is None:
        reason = "its edges are not finite and ascending, so it has no axis"
        return placard(title, reason, width=width, height=height, style=palette.muted)

    if selected is not None:
        selected = clamped(h, selected)
    head = _title(h, (title, symbol or title), unit, selected, log_counts, width, palette)
    notes = _notes(h, plot, unit, palette)
    foot = [
        _axis_row(plot, selected, width, palette),
        row(width, [("count".rjust(GUTTER - 1) + " ", palette.muted), (labels(plot.axis, unit), "")]),
        *([row(width, notes)] if notes else []),
    ]
    if height < 2 + len(foot):
        foot = foot[1:]  # the axis' labels say more than its line
    styles = {bar: _style(bar, h, palette) for bar in plot.bars}
    bars = _bar_rows(plot, max(height - 1 - len(foot), 1), selected, log_counts, width, styles, palette)
    return stretched([head, *bars, *foot], height)


def shared_edges(hs: Iterable[Histogram | None]) -> tuple[float, float] | None:
    """An axis that holds them all; None where none of them has one."""
    ends = [(h.edges[0], h.edges[-1]) for h in hs if h is not None and drawable(h)]
    return (min(lo for lo, _ in ends), max(hi for _, hi in ends)) if ends else None


def bins_at(
    h: Histogram, column: int, width: int, axis: tuple[float, float] | None = None
) -> tuple[int, int] | None:
    """First and last bin of the bar drawn in a column of `histogram(…, width=width)`."""
    plot = plot_bins(h, width - GUTTER, axis)
    if plot is None or not 0 <= column - GUTTER < plot.axis.width:
        return None
    bar = plot.columns[column - GUTTER]
    return None if bar is None else (bar.first, bar.last)


def value_range(h: Histogram, selected: tuple[int, int]) -> ValueRange:
    """What values the selected bins hold.

    Raises:
        ValueError: a histogram without bins.
    """
    if not drawable(h):
        raise ValueError("expected a histogram with finite, ascending edges")
    first, last = clamped(h, selected)
    return ValueRange(h.edges[first], h.edges[last + 1], closed=last == len(h.counts) - 1)


def _total(h: Histogram) -> int:
    return sum(h.counts) + h.nan + h.underflow + h.overflow


def _title(
    h: Histogram,
    titles: tuple[str, str],
    unit: str,
    selected: tuple[int, int] | None,
    log_counts: bool,
    width: int,
    palette: Palette,
) -> Text:
    spellings = [f"{_total(h)} values{', log counts' if log_counts else ''}"]
    style = palette.muted
    if selected is not None:
        first, last = selected
        values = f"{number(h.edges[first])} … {number(h.edges[last + 1])}"
        among = f"{sum(h.counts[first : last + 1])} of {_total(h)}"
        spellings = [f"{values} {unit}: {among}", f"{values}: {among}", among]
        style = palette.selected
    fitting = ((t, s) for s in spellings for t in titles if cell_len(t) + 2 + cell_len(s) <= width)
    # The numbers are worth more than the words: the title gives way.
    said = next((s for s in spellings if cell_len(s) <= width), spellings[-1])
    title, said = next(fitting, (cut(titles[-1], max(width - cell_len(said) - 2, 0)), said))
    return row(width, [(title, palette.accent), ("  " if title else "", ""), (said, style)])


def _notes(h: Histogram, plot: Plot, unit: str, palette: Palette) -> list[Cell]:
    """In words, what is not on the axis, and how many bins make a bar."""
    axis = plot.axis
    below = h.underflow + sum(bar.count for bar in plot.bars if bar.hi <= axis.lo)
    above = h.overflow + sum(bar.count for bar in plot.bars if bar.lo >= axis.hi)
    together = max(bar.last - bar.first + 1 for bar in plot.bars)
    notes = [
        (f"{h.nan} NaN" if h.nan else "", palette.warn),
        (f"{below} below {number(axis.lo)} {unit}" if below else "", palette.warn),
        (f"{above} above {number(axis.hi)} {unit}" if above else "", palette.warn),
        (f"{h.zeros} exactly 0" if h.zeros else "", palette.muted),
        (f"{together} bins a bar" if together > 1 else "", palette.muted),
    ]
    said = [(text, style) for text, style in notes if text]
    return [cell for index, note in enumerate(said) for cell in ((" · " if index else "", ""), note)]


def _bar_rows(
    plot: Plot,
    height: int,
    selected: tuple[int, int] | None,
    log_counts: bool,
    width: int,
    styles: dict[Bar, str],
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
            style = palette.zero if bar is None else styles[bar]
            if glyph == " " and column == plot.axis.zero:
                glyph, style = "┊", palette.zero
            if selected is not None and bar is not None and not bar.among(selected):
                # Reversing a bar would fill the space above it: what is not selected steps back instead.
                style = f"{style} {palette.muted}"
            cells.append((glyph, style))
        rows.append(row(width, cells))
    return rows


def _eighths(value: int, top: int, height: int, log_counts: bool) -> int:
    """A bar's height in eighths of a row; what is there at all is seen."""
    if value <= 0:
        return 0
    fraction = math.log1p(value) / math.log1p(top) if log_counts else value / top
    return max(round(fraction * 8 * height), 1)


def _axis_row(plot: Plot, selected: tuple[int, int] | None, width: int, palette: Palette) -> Text:
    cells: list[Cell] = [("0┼".rjust(GUTTER), palette.muted)]
    for glyph, bar in zip(ticks(plot.axis), plot.columns, strict=True):
        chosen = bar is not None and bar.among(selected)
        cells.append((glyph, palette.selected if chosen else palette.muted))
    return row(width, cells)


def _style(bar: Bar, h: Histogram, palette: Palette) -> str:
    """Values that are exactly 0 are counted right of 0, and move nothing."""
    if bar.hi <= 0:
        return palette.falls
    return palette.rises if bar.lo >= 0 and not _all_zero(bar, h) else palette.zero


def _all_zero(bar: Bar, h: Histogram) -> bool:
    return bar.lo <= 0 < bar.hi and 0 < bar.count == h.zeros
