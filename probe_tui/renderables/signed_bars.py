"""Numbers that add up, each a bar to the left or to the right of zero."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.cells import cell_len
from rich.text import Text

from probe_tui.renderables.cells import fill, one_line, row
from probe_tui.renderables.numbers import number
from probe_tui.renderables.palette import Palette

LONGEST = 20
"""Columns of a bar on either side."""


def signed_bars(rows: Sequence[tuple[str, float | None]], *, width: int, palette: Palette) -> list[Text]:
    """A row a number: label, bar from zero, the number; the largest fills its side.

    What is not known, or no number, has no bar.
    """
    if not rows:
        return []
    labels = max(cell_len(one_line(label)) for label, _ in rows)
    beside = max(cell_len(number(value)) for _, value in rows)
    side = max(min((width - labels - beside - 3) // 2, LONGEST), 1)
    sizes = [value if value is not None and math.isfinite(value) else 0.0 for _, value in rows]
    largest = max(map(abs, sizes))
    drawn = []
    for (label, value), size in zip(rows, sizes, strict=True):
        bar = "█" * round(side * abs(size) / largest) if largest else ""
        left, right = (bar, "") if size < 0 else ("", bar)
        style = palette.sign(size)
        cells = [(fill(label, labels) + " ", ""), (left.rjust(side), style), ("│", palette.muted)]
        drawn.append(row(width, [*cells, (right.ljust(side), style), (f" {number(value)}", palette.muted)]))
    return drawn
