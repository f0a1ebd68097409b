"""The influence matrix: whom does training on whom move, and which way?"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import chain

from rich.cells import cell_len
from rich.text import Text

from probe_engine.report import Influence, Number
from probe_tui.renderables.cells import Cell, placard, row, stretched, wrap
from probe_tui.renderables.numbers import number
from probe_tui.renderables.palette import Palette

SHADES = "█▓▒░"
STEP = 10**-0.5
"""From a shade to the next: influence spans decades, that of a prompt on itself being the largest."""
SPELLED = 2
"""Rows for the cell in words."""
ROOMY = 60
"""Columns that a whole sentence takes."""
MEAN = "│mean"

K = list[list[Number]]


def heatmap(
    influence: Influence | None,
    *,
    width: int,
    height: int,
    palette: Palette,
    cursor: tuple[int, int] | None = None,
    numbers: Sequence[int] | None = None,
    means: bool = False,
    unit: str = "nats",
    empty_reason: str = "",
) -> list[Text]:
    """`height` rows: what is seen, column numbers, K at two columns a cell, the scale, a cell in words.

    A cell is a shade for the size and − (entropy falls) or + (rises). What does not fit scrolls around
    the cursor.

    Args:
        cursor: row (whose entropy moves) and column (who was trained on), from 0. Without one the cell of
            the largest influence is put into words.
        numbers: by which the rows and columns are known; default: 1, 2, …
        means: also the mean of each row and of each column, without the diagonal.
        unit: of K.
        empty_reason: said where there is no matrix.
    """
    if influence is None or not any(influence.K):
        title = "influence of training on one prompt on the entropy of another"
        return placard(title, empty_reason or "nothing yet", width=width, height=height, style=palette.muted)
    k, scale = influence.K, _scale(influence.K)
    rows, columns = len(k), max(map(len, k))
    u, v = _clamped(cursor, rows, columns) if cursor is not None else _largest(k)

    known_as = range(1, max(rows, columns) + 1) if numbers is None else numbers
    gutter = max(len(str(max(known_as))), 4 if means else 2) + 1
    across = max((width - gutter - (len(MEAN) if means else 0)) // 2, 1)
    down = max(height - 3 - SPELLED - means, 1)
    us, vs = _window(rows, down, u), _window(columns, across, v)

    def cell(value: float | None, here: bool = False) -> Cell:
        style = palette.sign(value)
        return glyphs(value, scale), f"{style} {palette.selected}" if here else style

    body = []
    for i in us:
        cells = [(f"{known_as[i]:>{gutter - 1}} ", palette.muted)]
        cells += [cell(_at(k, i, j), here=cursor is not None and (i, j) == (u, v)) for j in vs]
        if means:
            cells += [("│", palette.muted), cell(_others(k[i], i))]
        body.append(row(width, cells))
    if means:
        averages = [cell(_others(_column(k, j), j)) for j in vs]
        body.append(row(width, [(f"{'mean':<{gutter}}", palette.muted), *averages]))

    said = _spelled(influence, u, v, known_as, unit, means, brief=width < ROOMY)
    if cursor is None:
        said = f"largest: {said}"
    return stretched(
        [
            row(width, [(_seen(us, rows, vs, columns, width), palette.accent)]),
            row(width, [(" " * gutter + _numbers(vs, known_as, v) + (MEAN if means else ""), palette.muted)]),
            *stretched(body, down + means),
            row(width, _legend(scale, unit, width, palette)),
            *(row(width, [(line, "")]) for line in wrap(said, width)),
        ],
        height,
    )


def glyphs(value: float | None, scale: float) -> str:
    """Shade and sign of one cell; `· ` is exactly 0, `? ` is unknown."""
    if value is None or math.isnan(value):
        return "? "
    if value == 0:
        return "· "
    level = next((i for i in range(len(SHADES) - 1) if abs(value) >= scale * STEP ** (i + 1)), -1)
    return SHADES[level] + ("−" if value < 0 else "+")


def _scale(k: K) -> float:
    """The largest |K| that is finite."""
    return max((abs(x) for x in chain.from_iterable(k) if x and math.isfinite(x)), default=0.0)


def _largest(k: K) -> tuple[int, int]:
    cells = ((abs(x), u, v) for u, cells in enumerate(k) for v, x in enumerate(cells) if x and x == x)
    _, u, v = max(cells, default=(0.0, 0, 0))
    return u, v


def _clamped(cursor: tuple[int, int], rows: int, columns: int) -> tuple[int, int]:
    return min(max(cursor[0], 0), rows - 1), min(max(cursor[1], 0), columns - 1)


def _at(k: K, u: int, v: int) -> float | None:
    """None, too, where a row is short."""
    return k[u][v] if v < len(k[u]) else None


def _column(k: K, v: int) -> Iterable[float | None]:
    return (_at(k, u, v) for u in range(len(k)))


def _mean(values: Iterable[float | None]) -> float | None:
    """Over the known ones."""
    known = [x for x in values if x is not None and math.isfinite(x)]
    # Divided first: a sum of the largest floats overflows.
    return math.fsum(x / len(known) for x in known) if known else None


def _others(values: Iterable[float | None], own: int) -> float | None:
    """Without the diagonal: −η·r_n is the mean of such a row's mean and such a column's."""
    return _mean(x for n, x in enumerate(values) if n != own)


def _window(size: int, room: int, at: int) -> range:
    """The part that is seen, `at` in its middle where possible."""
    start = min(max(at - room // 2, 0), max(size - room, 0))
    return range(start, min(start + room, size))


def _seen(us: range, rows: int, vs: range, columns: int, width: int) -> str:
    """What rows and columns are, and which of them are seen; where both have no room, the latter alone."""
    parts = [f"rows {us.start + 1}–{us.stop}/{rows}" if len(us) < rows else ""]
    parts.append(f"columns {vs.start + 1}–{vs.stop}/{columns}" if len(vs) < columns else "")
    seen = " · ".join(part for part in parts if part)
    said = "entropy of ↓ trained on →, precond step"
    whole = f"{said} · {seen}" if seen else said
    return whole if cell_len(whole) <= width or not seen else f"↓→ {seen}"


def _numbers(vs: range, known_as: Sequence[int], chosen: int) -> str:
    """The number of the chosen column and, where they don't touch it, of every fifth, ending over it."""
    line = " " * (2 * len(vs))
    for v in sorted(vs, key=lambda v: v != chosen):
        if v == chosen or v == 0 or (v + 1) % 5 == 0:
            label, end = str(known_as[v]), 2 * (v - vs.start) + 2
            start = max(end - len(label), 0)
            if not line[max(start - 1, 0) : end + 1].strip():
                line = line[:start] + label + line[start + len(label) :]
    return line


def _legend(scale: float, unit: str, width: int, palette: Palette) -> list[Cell]:
    """Signs and shades, with as much of their measure as there is room for."""
    signs = [("− falls", palette.falls), (" ", ""), ("+ rises", palette.rises)]
    bounds = [number(scale * STEP ** (i + 1), 2) for i in range(len(SHADES) - 1)]
    for shades in (
        "  "
        + " ".join(f"{SHADES[i]} ≥{bounds[i]}" for i in range(len(bounds)))
        + f" {SHADES[-1]} less, {unit}",
        "  " + " ".join(f"{SHADES[i]}≥{bounds[i]}" for i in range(len(bounds))) + f" {SHADES[-1]}less",
        f"  {SHADES} {number(scale, 2)} to 0",
        f"  {SHADES}",
    ):
        if sum(cell_len(text) for text, _ in signs) + cell_len(shades) <= width:
            return [*signs, (shades, palette.muted)]
    return signs


def _spelled(
    influence: Influence, u: int, v: int, known_as: Sequence[int], unit: str, means: bool, brief: bool
) -> str:
    value = _at(influence.K, u, v)
    moves = "" if not value or math.isnan(value) else ": it falls" if value < 0 else ": it rises"
    if brief:
        return f"training {known_as[v]} → entropy {known_as[u]}: {number(value)} {unit}{moves}"
    said = f"training on {known_as[v]} moves the entropy of {known_as[u]} by {number(value)} {unit}{moves}"
    if means:
        row_mean, column_mean = _others(influence.K[u], u), _others(_column(influence.K, v), v)
        said += f" · mean of the others: row {number(row_mean)}, column {number(column_mean)}"
    return f"{said} · {_id(influence, v)} → {_id(influence, u)}"


def _id(influence: Influence, n: int) -> str:
    return influence.ids[n] if n < len(influence.ids) else str(n + 1)
