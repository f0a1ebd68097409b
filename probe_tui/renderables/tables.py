"""The table of units: what a table widget shows of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from rich.cells import cell_len
from rich.text import Text

from probe_engine.report import UnitRow
from probe_tui.renderables.cells import cut, one_line
from probe_tui.renderables.histogram import ValueRange
from probe_tui.renderables.numbers import count, number, share
from probe_tui.renderables.palette import Palette

Order = Literal["contribution", "role", "reward", "prompt"]
Side = Literal["s", "r"]
"""Contributions +η·s_n of the prompts in E, or −η·r_n of all."""

SYMBOLS = {"s": "+η·s_n", "r": "−η·r_n"}
SHORTEST_PROMPT = 24
"""Columns that the prompt keeps before other columns give way."""
NUMBER = 9
"""Columns of −1.23e-05."""


@dataclass(frozen=True)
class Column:
    """A column's heading and width in cells."""

    title: str
    width: int


@dataclass(frozen=True)
class Cells:
    """One unit's row, a cell a column."""

    id: str
    cells: tuple[Text, ...]


@dataclass(frozen=True)
class UnitTable:
    """Columns and rows, as a table widget wants them."""

    columns: tuple[Column, ...]
    rows: tuple[Cells, ...]


def unit_rows(
    units: Sequence[UnitRow],
    *,
    width: int,
    palette: Palette,
    order: Order = "contribution",
    side: Side = "r",
    selected_range: ValueRange | None = None,
    unit: str = "nats",
    gap: int = 2,
) -> UnitTable:
    """The units whose contribution is in the range, with their share of all units' sum (that of δH₁).

    Args:
        width: of the whole table; where it is narrow, the less important columns give way.
        order: contribution: the largest |contribution| first; reward: the highest first. What is unknown
            comes last, equals stay in the report's order.
        side: which contribution is meant.
        selected_range: of chosen bins; default: all units, measured or not.
        unit: of contributions.
        gap: cells that the widget adds to each column.
    """
    known = {u.id: c for u in units if (c := contribution(u, side)) is not None}
    # Shares of exactly what is shown elsewhere: the range does not change them.
    total = math.fsum(c / len(known) for c in known.values()) * len(known) if known else 0.0
    shown = [u for u in units if selected_range is None or known.get(u.id, math.nan) in selected_range]
    shown.sort(key=lambda u: _rank(u, known.get(u.id), order))

    fields = _fields(width, gap, unit, side)
    rows = []
    for u in shown:
        c = known.get(u.id)
        part = c / total if c is not None and total else None
        rows.append(Cells(u.id, tuple(field.cell(u, c, part, palette) for field in fields)))
    return UnitTable(tuple(field.column for field in fields), tuple(rows))


def contribution(unit: UnitRow, side: Side) -> float | None:
    """+η·s_n or −η·r_n; None where it is not known."""
    value = unit.contribution_s if side == "s" else unit.contribution_r
    return None if value is None or not math.isfinite(value) else value


def _rank(u: UnitRow, known: float | None, order: Order) -> tuple[bool, float | str]:
    match order:
        case "contribution":
            return known is None, -abs(known or 0.0)
        case "role":
            return False, u.role
        case "reward":
            return _unknown(u.reward_mean), 0.0 if _unknown(u.reward_mean) else -(u.reward_mean or 0.0)
        case "prompt":
            return False, one_line(u.prompt).casefold()


def _unknown(value: float | None) -> bool:
    return value is None or math.isnan(value)


@dataclass(frozen=True)
class _Field:
    """A column and how its cells are made, from a unit, its contribution and its share."""

    column: Column
    text: Callable[[UnitRow, float | None, float | None], str]
    signed: bool = False
    numeric: bool = True

    def cell(self, u: UnitRow, known: float | None, part: float | None, palette: Palette) -> Text:
        text = Text(cut(self.text(u, known, part), self.column.width), no_wrap=True)
        if self.numeric:
            text.justify = "right"
        if self.signed and (style := palette.sign(known)):
            text.stylize(style)
        return text


def _fields(width: int, gap: int, unit: str, side: Side) -> list[_Field]:
    """The contribution, the prompt, and between them the columns that there is room for."""
    title = f"{SYMBOLS[side]} {unit}" if width >= 60 else SYMBOLS[side]
    first = _Field(Column(title, max(NUMBER, cell_len(title))), lambda _, c, __: number(c), signed=True)
    optional = [
        _Field(Column("share", 7), lambda _, __, part: share(part)),
        _Field(Column("role", 4), lambda u, _, __: u.role, numeric=False),
        _Field(Column("reward", 7), lambda u, _, __: number(u.reward_mean)),
        _Field(Column("responses", 9), lambda u, _, __: count(u.G)),
        _Field(Column("tokens", 6), lambda u, _, __: count(u.tokens)),
        _Field(Column("id", 16), lambda u, _, __: u.id, numeric=False),
    ]
    fields = [first]
    room = width - first.column.width - 2 * gap
    for field in optional:
        if room - field.column.width - gap < SHORTEST_PROMPT:
            break
        fields.append(field)
        room -= field.column.width + gap
    return [*fields, _Field(Column("prompt", max(room, 1)), lambda u, _, __: u.prompt, numeric=False)]
