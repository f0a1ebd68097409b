"""Plots as inline SVG: report data in, markup out. Colours are classes of report.css, which knows the theme.

User units are pixels of a phone's screen; the page scales the whole drawing up where there is more room.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from markupsafe import Markup

from probe_engine.report import Histogram
from probe_tui.renderables.axis import Axis, spans
from probe_tui.renderables.forest import Interval
from probe_tui.renderables.numbers import count, interval, number

WIDTH = 420
MARGIN = 12
"""Left and right of the axis, so that the labels of its ends have room."""
ROW = 34
"""A row of the forest: a line of text, and the interval under it."""
BARS = 120
"""Height of a histogram's highest bar."""


def forest(rows: Sequence[Interval], *, title: str, unit: str) -> Markup:
    """A row an interval, all on one axis that holds 0."""
    axis = Axis.over((v for r in rows for v in (r.value, r.lo, r.hi) if v is not None), WIDTH - 2 * MARGIN)
    bottom = ROW * len(rows) + 6
    parts = [part for index, r in enumerate(rows) for part in _interval(r, axis, ROW * index)]
    ends = (
        _text("◀ entropy falls", MARGIN, bottom + 34, "falls"),
        _text("entropy rises ▶", WIDTH - MARGIN, bottom + 34, "rises end"),
    )
    return _svg([*parts, *_axis(axis, bottom, unit), *ends], bottom + 42, title)


def histogram(h: Histogram, *, title: str, unit: str, directed: bool = True) -> Markup:
    """Bars over the axis of values, with 0 marked, and in words what lies outside.

    Args:
        directed: does the sign of a value say where entropy goes?
    """
    edges = h.edges
    if len(edges) != len(h.counts) + 1 or not spans(edges[0], edges[-1]):
        return Markup("<p>{}: nothing to draw</p>").format(title)
    axis = Axis(edges[0], edges[-1], WIDTH - 2 * MARGIN)
    top, bottom = max([*h.counts, 1]), 20 + BARS
    parts = [_text(f"highest bar: {count(top)}", MARGIN, 12, "muted")]
    for lo, hi, n in zip(edges, edges[1:], h.counts, strict=False):
        still = lo <= 0 < hi and n == h.zeros  # counted right of 0, and moving nothing
        style = ("falls" if hi <= 0 else "unsure" if still else "rises") if directed else "neutral"
        x, height = _x(axis, lo), BARS * n / top
        parts.append(
            Markup('<rect class="{}" x="{:.2f}" y="{:.2f}" width="{:.2f}" height="{:.2f}">{}</rect>').format(
                style,
                x,
                bottom - height,
                max(_x(axis, hi) - x - 0.5, 0.5),
                height,
                Markup("<title>{}</title>").format(f"{number(lo)} … {number(hi)} {unit}: {n}"),
            )
        )
    if axis.holds(0.0):
        parts.append(_line("zero", axis, 0.0, 16, bottom))
    outside = h.nan + h.underflow + h.overflow
    places = [(h.nan, "not a number"), (h.underflow, "below"), (h.overflow, "above"), (h.zeros, "exactly 0")]
    notes = ", ".join(f"{n} {where}" for n, where in places if n)
    parts += _axis(axis, bottom, unit)
    if notes:
        parts.append(_text(notes, MARGIN, bottom + 34, "warn" if outside else "muted"))
    return _svg(parts, bottom + (42 if notes else 24), title)


def _interval(r: Interval, axis: Axis, top: int) -> Iterable[Markup]:
    value, lo, hi = (v if v is not None and math.isfinite(v) else None for v in (r.value, r.lo, r.hi))
    yield _text(r.label, MARGIN, top + 14)
    known = "" if lo is None or hi is None else f" {interval(lo, hi)}"
    yield _text(f"{number(value)}{known}", WIDTH - MARGIN, top + 14, "end muted")
    style = "unsure"
    if lo is not None and hi is not None and (lo > 0 or hi < 0):
        style = "falls" if hi < 0 else "rises"
    y = top + 25
    # In the strip of the interval alone: a line through all rows would cross their numbers.
    yield _line("zero", axis, 0.0, y - 8, y + 8)
    if lo is not None and hi is not None:
        yield Markup('<path class="{0}" d="M{1:.2f} {3}v8m0 -4H{2:.2f}m0 -4v8"/>').format(
            style, _x(axis, lo), _x(axis, hi), y - 4
        )
    if value is not None:
        yield Markup('<circle class="{}" cx="{:.2f}" cy="{}" r="4"/>').format(style, _x(axis, value), y)


def _axis(axis: Axis, y: int, unit: str) -> Iterable[Markup]:
    yield Markup('<path class="axis" d="M{} {}H{}"/>').format(MARGIN, y, WIDTH - MARGIN)
    yield _text(number(axis.lo), MARGIN, y + 16)
    yield _text(f"{number(axis.hi)} {unit}", WIDTH - MARGIN, y + 16, "end")
    # The label of 0 must not run into those of the ends.
    if 0.2 < axis.fraction(0.0) < 0.6:
        yield _text("0", _x(axis, 0.0), y + 16, "middle")


def _line(style: str, axis: Axis, value: float, top: int, bottom: int) -> Markup:
    return Markup('<path class="{}" d="M{:.2f} {}V{}"/>').format(style, _x(axis, value), top, bottom)


def _text(words: str, x: float, y: float, style: str = "") -> Markup:
    return Markup('<text class="{}" x="{:.2f}" y="{:.2f}">{}</text>').format(style, x, y, words)


def _x(axis: Axis, value: float) -> float:
    return MARGIN + min(max(axis.fraction(value), 0.0), 1.0) * axis.width


def _svg(parts: Iterable[Markup], height: int, title: str) -> Markup:
    return Markup('<svg role="img" aria-label="{}" viewBox="0 0 {} {}">{}</svg>').format(
        title, WIDTH, height, Markup("").join(parts)
    )
