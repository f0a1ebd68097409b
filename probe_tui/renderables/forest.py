"""Estimates with their intervals, one a row, on one axis."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.text import Text

from probe_tui.renderables.axis import Axis, direction, labels, ticks
from probe_tui.renderables.cells import Cell, fill, one_line, row
from probe_tui.renderables.numbers import interval, number
from probe_tui.renderables.palette import Palette

REACH = 4.0
"""The axis ends at this many times the median row's reach: one wild row must not flatten the others."""
NARROWEST = 16
"""Columns that the drawing keeps before the numbers beside it give way."""


@dataclass(frozen=True)
class Interval:
    """A row: an estimate and its bounds, None where unknown."""

    label: str
    value: float | None
    lo: float | None
    hi: float | None
    note: str = ""


def forest(rows: Sequence[Interval], *, width: int, palette: Palette, unit: str) -> list[Text]:
    """A row an interval, then the axis, its labels and what its sides mean: `len(rows) + 3` rows.

    `├──●──┤` is an interval, ◀ or ▶ an end that leaves the axis.
    """
    label_width = min(max((cell_len(one_line(r.label)) for r in rows), default=0), width // 3)
    beside = _numbers(rows, width - label_width - 1)
    axis = _axis(rows, max(width - label_width - 1 - max(map(cell_len, beside), default=0), 1))
    margin = (" " * (label_width + 1), "")
    drawn = [
        row(
            width,
            [(fill(r.label, label_width) + " ", ""), *_drawing(r, axis, palette), (said, palette.muted)],
        )
        for r, said in zip(rows, beside, strict=True)
    ]
    return [
        *drawn,
        row(width, [margin, (ticks(axis), palette.muted)]),
        row(width, [margin, (labels(axis, unit), "")]),
        row(width, [margin, *direction(axis.width, palette)]),
    ]


def _numbers(rows: Sequence[Interval], room: int) -> list[str]:
    """The most that can be said beside the drawing, the same of each row."""
    values = [f"  {number(r.value)}" for r in rows]
    bounds = [f"{v} {interval(r.lo, r.hi)}" for v, r in zip(values, rows, strict=True)]
    noted = [f"{b} {one_line(r.note)}".rstrip() for b, r in zip(bounds, rows, strict=True)]
    for said in (noted, bounds, values):
        if room - max(map(cell_len, said), default=0) >= NARROWEST:
            return said
    return [""] * len(rows)


def _axis(rows: Sequence[Interval], width: int) -> Axis:
    shown = [[v for v in (r.value, r.lo, r.hi) if v is not None and math.isfinite(v)] for r in rows]
    reaches = [max(map(abs, values)) for values in shown if any(values)]
    limit = REACH * statistics.median_low(reaches) if reaches else 0.0
    return Axis.over((min(max(v, -limit), limit) for values in shown for v in values), width)


def _drawing(r: Interval, axis: Axis, palette: Palette) -> list[Cell]:
    value, lo, hi = (None if v is None or math.isnan(v) else v for v in (r.value, r.lo, r.hi))
    if lo is not None and hi is not None:
        lo, hi = min(lo, hi), max(lo, hi)
    glyphs = [" "] * axis.width
    if axis.zero is not None:
        glyphs[axis.zero] = "│"
    known = [axis.column(v) for v in (lo, value, hi) if v is not None]
    for column in range(min(known), max(known) + 1) if known else ():
        glyphs[column] = "┼" if column == axis.zero else "─"
    for v, glyph in ((lo, "├"), (hi, "┤"), (value, "●")):
        if v is not None:
            glyphs[axis.column(v)] = "◀" if v < axis.lo else "▶" if v > axis.hi else glyph
    certain = lo is not None and hi is not None and (lo > 0 or hi < 0)
    style = palette.sign(lo) if certain else palette.zero
    return [(glyph, palette.zero if glyph == "│" else style) for glyph in glyphs]
