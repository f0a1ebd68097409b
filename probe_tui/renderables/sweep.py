"""The step sweep: the change per step at each scale, and where first order ends."""

from __future__ import annotations

from rich.text import Text

from probe_engine.report import Sweep, SweepPoint
from probe_tui.renderables.cells import row
from probe_tui.renderables.forest import Interval, forest
from probe_tui.renderables.numbers import number
from probe_tui.renderables.palette import Palette
from probe_tui.sweep_words import per_step_of, range_words, scale_words

RULE = "──"
"""What the row that marks the end of the linear range begins with."""


def sweep_rows(swept: Sweep, *, width: int, palette: Palette, unit: str) -> list[Text]:
    """δH₁, then a row a scale with ΔĤ over the scale, then the forest's three axis rows.

    First order keeps ΔĤ/scale at δH₁. Intervals are those of the departure from it, since the sampling noise
    of first order is in both. A row of its own marks the end of the linear range.
    """
    first = next((p.predicted for p in swept.points if p.scale == 1), None)
    intervals = [Interval("δH₁", first, None, None, "(first order)"), *map(_interval, swept.points)]
    drawn = forest(intervals, width=width, palette=palette, unit=unit)
    within = sum(p.scale <= (swept.linear_range or 0.0) for p in swept.points)
    mark = f"{RULE} {range_words(swept)} "
    drawn.insert(1 + within, row(width, [(mark + "─" * max(width - len(mark), 0), palette.accent)]))
    return drawn


def _interval(point: SweepPoint) -> Interval:
    lo, hi = point.departure_ci95 or (None, None)
    return Interval(
        scale_words(point.scale),
        per_step_of(point.delta_h, point),
        per_step_of(_plus(point.predicted, lo), point),
        per_step_of(_plus(point.predicted, hi), point),
        f"ESS/N {number(point.ess_fraction, 2)}",
    )


def _plus(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a + b
