"""Signed horizontal bars around zero: what each item adds to a change of entropy."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.cells import cell_len
from rich.text import Text

from probe_tui.renderables.axis import Axis, direction
from probe_tui.renderables.cells import Cell, fill, one_line, row
from probe_tui.renderables.numbers import number
from probe_tui.renderables.palette import Palette

NARROWEST = 12
"""Columns that the bars keep before the numbers beside them give way."""


def signed_bars(
    items: Sequence[tuple[str, float | None]], *, width: int, palette: Palette, unit: str
) -> list[Text]:
    """A row an item, label, bar and number, then what the sides mean: `len(items) + 1` rows."""
    label_width = min(max((cell_len(one_line(label)) for label, _ in items), default=0), width // 3)
    numbers = [f" {number(value)} {one_line(unit)}".rstrip() for _, value in items]
    room = width - label_width - 1
    beside = max(map(cell_len, numbers), default=0)
    if room - beside < NARROWEST:
        numbers, beside = [""] * len(items), 0
    axis = Axis.over((v for _, v in items if v is not None), max(room - beside, 2))
    drawn = [
        row(width, [(fill(label, label_width) + " ", ""), *_bar(value, axis, palette), (said, palette.muted)])
        for (label, value), said in zip(items, numbers, strict=True)
    ]
    return [*drawn, row(width, [(" " * (label_width + 1), ""), *direction(axis.width, palette)])]


def _bar(value: float | None, axis: Axis, palette: Palette) -> list[Cell]:
    """Half cells from the zero line; what is there at all is seen."""
    glyphs = [" "] * axis.width
    zero = axis.column(0.0)
    glyphs[zero] = "│"
    if value is not None and value and not math.isnan(value):
        end = axis.column(value)
        step = -1 if value < 0 else 1
        for column in range(zero + step, end + step, step):
            glyphs[column] = "█"
        beyond = not axis.holds(value)
        # Where the bar ends inside of its last cell: left half or right half.
        position = axis.fraction(value) * axis.width
        half = not beyond and (position % 1 > 0.5 if value < 0 else 0 < position % 1 < 0.5)
        if beyond:
            glyphs[end] = "◀" if value < 0 else "▶"
        elif end == zero:
            glyphs[zero] = "▌" if value < 0 else "▐"
        elif half:
            glyphs[end] = "▐" if value < 0 else "▌"
    return [(g, palette.zero if g == "│" else palette.sign(value)) for g in glyphs]
