"""A fraction against its limits: a bar from 0 to 1 and the word for where it stands."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.cells import cell_len
from rich.text import Text

from probe_tui.plain import MARKS
from probe_tui.renderables.cells import Cell, one_line, row
from probe_tui.renderables.numbers import number
from probe_tui.renderables.palette import Palette

EIGHTHS = " ▏▎▍▌▋▊▉█"


def gauge(
    fraction: float | None, *, width: int, lines: Sequence[tuple[float, str]], palette: Palette, label: str
) -> list[Text]:
    """Three rows: the number with its word, the bar, the limits under it.

    Args:
        lines: limits, each with the status (warn, fail) of what lies below it.
    """
    known = None if fraction is None or math.isnan(fraction) else fraction
    limits = sorted(lines)
    word, style = standing(known, limits), palette.muted
    why = "not known"
    if known is not None:
        style = palette.status(word)
        limit = next((x for x, w in limits if known < x and w == word), None)
        why = f"{MARKS.get(word, '·')} {word}"
        below = "" if limit is None else f", below {number(limit)}"
        if cell_len(f"{one_line(label)} {number(known)}  {why}{below}") <= width:  # else the marks say it
            why += below
    return [
        row(width, [(one_line(label), palette.accent), (f" {number(known)}  ", ""), (why, style)]),
        row(width, _bar(known, limits, width, style)),
        row(width, _limits(limits, width, palette)),
    ]


def standing(fraction: float | None, lines: Sequence[tuple[float, str]]) -> str:
    """The word of the lowest limit that the fraction is below; ok where there is none."""
    if fraction is None or math.isnan(fraction):
        return "unknown"
    return next((word for limit, word in sorted(lines) if fraction < limit), "ok")


def _bar(fraction: float | None, limits: Sequence[tuple[float, str]], width: int, style: str) -> list[Cell]:
    filled = round(min(max(fraction or 0.0, 0.0), 1.0) * 8 * width)
    cells = [EIGHTHS[min(max(filled - 8 * column, 0), 8)] for column in range(width)]
    marks = {_column(limit, width) for limit, _ in limits}
    return [
        ("┊" if column in marks and glyph == " " else "─" if glyph == " " else glyph, style)
        for column, glyph in enumerate(cells)
    ]


def _limits(limits: Sequence[tuple[float, str]], width: int, palette: Palette) -> list[Cell]:
    """Each limit under its mark, in as many words as there is room for before the next."""
    cells: list[Cell] = []
    used = 0
    starts = [_column(limit, width) for limit, _ in limits]
    ends = [*starts[1:], width][: len(starts)]
    for (limit, word), start, end in zip(limits, starts, ends, strict=True):
        if start < used:
            continue
        texts = (f"▴{number(limit)} {word}", f"▴{number(limit)}", "▴")
        text = next(t for t in texts if len(t) < end - start or t == "▴")
        cells += [(" " * (start - used), ""), (text, palette.status(word))]
        used = start + len(text)
    return cells


def _column(limit: float, width: int) -> int:
    return min(int(min(max(limit, 0.0), 1.0) * width), width - 1)
