"""The influence matrix: whom does training on whom move, and which way?"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich.text import Text

from probe_engine.report import Influence
from probe_tui.renderables.cells import Cell, placard, row, stretched, wrap
from probe_tui.renderables.numbers import number
from probe_tui.renderables.palette import Palette

SHADES = "█▓▒░"
STEP = 10**-0.5
"""From one shade to the next: influence spans decades, its own on itself is the largest."""
SAID = 2
"""Rows for the cell in words."""


def heatmap(
    influence: Influence | None,
    *,
    width: int,
    height: int,
    palette: Palette,
    cursor: tuple[int, int] | None = None,
    means: bool = False,
    unit: str = "nats",
    empty_reason: str = "",
) -> list[Text]:
    """`height` rows: what is seen, column numbers, K at two columns a cell, the scale, the cursor in words.

    A cell is a shade for the size and − (entropy falls) or + (rises). What does not fit scrolls around
    the cursor.

    Args:
        cursor: row (whose entropy moves) and column (who was trained on), from 0; default: the cell of
            the largest influence is put into words.
        means: also the mean of each row and column.
        unit: of K.
        empty_reason: said where there is no matrix.
    """
    if influence is None or not any(influence.K):
        title = "influence of training on one prompt on the entropy of another"
        return placard(title, empty_reason or "nothing yet", width=width, height=height, style=palette.muted)
    matrix = _Matrix(influence)
    at = matrix.largest() if cursor is None else matrix.clamped(cursor)
    gutter = max(len(str(matrix.rows)), 2) + 1
    across = max((width - gutter - (3 if means else 0)) // 2, 1)
    down = max(height - 3 - SAID - (1 if means else 0), 1)
    us, vs = _window(matrix.rows, down, at[0]), _window(matrix.columns, across, at[1])

    def cell(value: float | None, here: bool = False) -> Cell:
        glyphs, style = matrix.glyphs(value), palette.sign(value)
        return glyphs, f"{style} {palette.selected}" if here else style

    body = []
    for u in us:
        cells = [(f"{u + 1:>{gutter - 1}} ", palette.muted)]
        cells += [cell(matrix.at(u, v), cursor is not None and (u, v) == at) for v in vs]
        if means:
            cells += [("│", palette.muted), cell(matrix.row_mean(u))]
        body.append(row(width, cells))
    if means:
        columns = [cell(matrix.column_mean(v)) for v in vs]
        body.append(row(width, [("x̄".rjust(gutter) + " ", palette.muted), *columns]))
    return stretched(
        [
            row(width, [(_seen(matrix, us, vs), palette.accent)]),
            row(width, [(" " * gutter, ""), (_numbers(vs), palette.muted)]),
            *stretched(body, down + (1 if means else 0)),
            row(width, _legend(matrix, unit, palette)),
            *(row(width, [(line, "")]) for line in wrap(_spelled(matrix, at, cursor, means, unit), width)[:SAID]),
        ],
        height,
    )


@dataclass(frozen=True)
class _Matrix:
    """K, readable whatever its rows' lengths; a number that is not finite counts as unknown."""

    influence: Influence

    @property
    def rows(self) -> int:
        return len(self.influence.K)

    @property
    def columns(self) -> int:
        return max(map(len, self.influence.K))

    def at(self, u: int, v: int) -> float | None:
        cells = self.influence.K[u]
        value = cells[v] if v < len(cells) else None
        return None if value is None or not math.isfinite(value) else value
