"""UnitTable: a row a unit, sorted, brought up to date in place."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Literal

from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text
from textual.binding import Binding, BindingType
from textual.coordinate import Coordinate
from textual.widgets import DataTable
from textual.widgets.data_table import ColumnKey

from probe_engine.report import UnitRow
from probe_tui.renderables.cells import cut, one_line
from probe_tui.renderables.numbers import count, number, share
from probe_tui.renderables.palette import DEFAULT, Palette

SHORTEST_PROMPT = 16
"""Columns that the prompt keeps before the numbers beside it give way."""
LONG = 500
"""Characters of a prompt that are looked at: more than a row ever shows."""
GAP = 2
"""What the table puts around each column."""
FEW = 24
"""Up to so many rows are removed one by one: each time the table counts all others anew."""

Change = float | None


@dataclass(frozen=True)
class Cell:
    """One cell: what it says, and how it sorts.

    It can't be measured: the table measures every cell that is added, though its columns have fixed widths,
    and asks the terminal for its size each time that one answers.
    """

    text: str
    rank: float | str | None
    """Ascending; None, for what is unknown, comes last."""
    style: str = ""
    justify: Literal["left", "right"] = "right"

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Text(self.text, self.style, no_wrap=True, end="", justify=self.justify)


@dataclass(frozen=True)
class Column:
    """One column, and how its cells are made of a unit and the sum of all changes."""

    title: str
    width: int
    field: str
    """Of the report's `units[]`."""
    cell: Callable[[UnitRow, float, Palette], Cell]
    live: bool = False
    """Does it change after its unit's row came?"""
    right: bool = True
    """Numbers stand on the right."""


def total_change(units: Iterable[UnitRow]) -> float:
    """Σ −η·r_n: δH₁ of the U-statistic times the number of units."""
    return math.fsum(u.contribution_r for u in units if u.contribution_r is not None)


def columns(width: int) -> tuple[Column, ...]:
    """The numbers that there is room for, then the prompt in what is left."""
    room = 0
    kept: tuple[Column, ...] = ()
    for kept in NUMBERS:
        room = width - sum(c.width + GAP for c in kept) - GAP
        if room >= SHORTEST_PROMPT:
            break
    return (*kept, _prompt(max(room, 1)))


def _change(field: str, title: str, of: Callable[[UnitRow], Change]) -> Column:
    def cell(unit: UnitRow, _: float, palette: Palette) -> Cell:
        change = of(unit)
        return Cell(number(change), _largest_first(change), "" if change is None else palette.sign(change))

    return Column(title, 9, field, cell, live=True)


def _share(unit: UnitRow, total: float, _: Palette) -> Cell:
    change = unit.contribution_r
    part = change / total if change is not None and total else None
    said = share(part)
    if part is not None and abs(part) >= 10:
        said = ">999%" if part > 0 else "<-999%"  # the changes cancel: shares of their sum say little
    return Cell(said, _largest_first(change))


def _reward(spread: bool) -> Callable[[UnitRow, float, Palette], Cell]:
    def cell(unit: UnitRow, _: float, __: Palette) -> Cell:
        mean = unit.reward_mean
        said = number(mean, 2)
        if spread and mean is not None:
            said = (
                f"{said} ± {number(unit.reward_std, 2)}"  # two digits: what is cut at the end would mislead
            )
        return Cell(said, None if mean is None else -mean)

    return cell


def _prompt(width: int) -> Column:
    def cell(unit: UnitRow, _: float, __: Palette) -> Cell:
        beginning = one_line(unit.prompt[:LONG])
        return Cell(cut(beginning, width), beginning.casefold(), justify="left")

    return Column("prompt", width, "prompt", cell, right=False)


def _largest_first(change: Change) -> Change:
    return None if change is None else -abs(change)


_R = _change("contribution_r", "−η·r_n", lambda u: u.contribution_r)
_SHARE = Column("share", 7, "contribution_r", _share, live=True)
_S = _change("contribution_s", "+η·s_n", lambda u: u.contribution_s)
_NUMBER = Column("#", 4, "id", lambda u, _, __: Cell("", None))
"""Its cells are the table's to make: a unit does not know its own number."""
_ROLE = Column("role", 6, "role", lambda u, _, __: Cell(u.role, u.role, justify="left"), right=False)
_REWARD_SPREAD = Column("reward ± SD", 14, "reward_mean", _reward(spread=True))
_REWARD = Column("reward", 8, "reward_mean", _reward(spread=False))
_TOKENS = Column("tokens", 8, "tokens", lambda u, _, __: Cell(count(u.tokens), -u.tokens))
_Z = Column(
    "z", 6, "on_policy_z", lambda u, _, __: Cell(number(u.on_policy_z, 2), _largest_first(u.on_policy_z))
)
"""Of the on-policy test: far from 0, the unit's responses are not the policy's."""

NUMBERS = (
    (_R, _SHARE, _S, _ROLE, _REWARD_SPREAD, _TOKENS, _Z, _NUMBER),
    (_R, _SHARE, _S, _ROLE, _REWARD_SPREAD, _TOKENS, _NUMBER),
    (_R, _SHARE, _S, _ROLE, _REWARD, _TOKENS, _NUMBER),
    (_R, _SHARE, _S, _ROLE, _REWARD, _NUMBER),
    (_R, _SHARE, _S, _ROLE, _NUMBER),
    (_R, _SHARE, _S, _NUMBER),
    (_R, _SHARE, _NUMBER),
    (_R, _NUMBER),
    (_R,),
)
"""From wide to narrow: the prompt screen has the others."""


class UnitTable(DataTable[Cell]):
    """Keeps cursor and scroll while rows come, change and move.

    On the first row the cursor stays there, whatever unit is the first; elsewhere it follows its unit.
    """

    DEFAULT_CSS = "UnitTable { scrollbar-size-vertical: 1; overflow-x: hidden; }"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("s", "sort_next", "sort by the next column", show=False),
        Binding("S", "reverse", "reverse the order", show=False),
    ]

    def __init__(self) -> None:
        super().__init__(cursor_type="row")
        self._width = 0
        self._laid_out: tuple[Column, ...] = ()
        self._units: tuple[UnitRow, ...] = ()
        self._total = 0.0
        self._numbers: Mapping[str, int] = {}
        self._palette = DEFAULT
        self._sorted_by = _R.title
        self._reversed = False
        self._ordered_by: tuple[str, bool] | None = None
        """The order that the rows have, and the mark in the titles."""

    @property
    def sorted_by(self) -> Column:
        """The column that gives the order; the first one where it has no room."""
        return next((c for c in self._laid_out if c.title == self._sorted_by), _R)

    @property
    def selected(self) -> str | None:
        """The id of the unit under the cursor."""
        if not self.is_valid_row_index(self.cursor_row):
            return None
        return self.coordinate_to_cell_key(Coordinate(self.cursor_row, 0)).row_key.value

    @property
    def ids(self) -> list[str]:
        """Of the units, from the top."""
        return [row.key.value or "" for row in self.ordered_rows]

    def show(
        self, units: Sequence[UnitRow], total: float, numbers: Mapping[str, int], palette: Palette
    ) -> None:
        """Shows exactly these units, known by their numbers; shares are shares of `total`."""
        self._units, self._total, self._palette = tuple(units), total, palette
        self._numbers = numbers
        self._fill()

    def select(self, id: str) -> None:
        """Puts the cursor on a unit, if it is shown."""
        if id in self.rows:
            self.move_cursor(row=self.get_row_index(id))

    def sort_by(self, title: str) -> None:
        """Sorts by a column; by the same once more: the other way round."""
        self._reversed = title == self.sorted_by.title and not self._reversed
        self._sorted_by = title
        self._fill()

    def action_sort_next(self) -> None:
        """Sorts by the column right of the present one."""
        titles = [c.title for c in self._laid_out]
        self.sort_by(titles[(titles.index(self.sorted_by.title) + 1) % len(titles)])

    def action_reverse(self) -> None:
        """The other way round."""
        self.sort_by(self.sorted_by.title)

    def on_resize(self) -> None:
        """Columns come and go with the width."""
        self._fill()

    def on_data_table_header_selected(self, event: DataTable.HeaderSelected) -> None:
        """A click on a title sorts."""
        event.stop()
        self.sort_by(event.column_key.value or "")

    def _fill(self) -> None:
        if not self.size.width:
            return  # hidden: the first resize fills it
        kept, row, top = self.selected, self.cursor_row, round(self.scroll_y)
        changed = self._lay_out() | self._remove() | self._write()
        self._order()
        at = row
        if row > 0 and kept is not None and kept in self.rows:
            at = self.get_row_index(kept)
            if 0 <= row - top < self.size.height - self.header_height:
                top += at - row  # what is looked at stays where it is on the screen
            self.move_cursor(row=at, scroll=False)
        scroll = partial(self.scroll_to, y=max(top, 0), animate=False, immediate=True)
        if changed and (at != row or round(self.scroll_y) != top):
            self.call_after_refresh(scroll)  # only then does the table know how high it is
        elif round(self.scroll_y) != top:
            scroll()

    def _lay_out(self) -> bool:
        """Columns for this width."""
        width = self.size.width - self.styles.scrollbar_size_vertical
        changed = width != self._width
        if changed:
            self._width, self._laid_out = width, columns(width)
            self.clear(columns=True)
            for column in self._laid_out:
                self.add_column(Text(column.title), width=column.width, key=column.title)
        for column in self._laid_out:
            mark = "" if column is not self.sorted_by else " ▴" if self._reversed else " ▾"
            label = Text(f"{column.title}{mark}", justify="right" if column.right else "left")
            self.columns[ColumnKey(column.title)].label = label
        return changed

    def _remove(self) -> bool:
        """Rows of units that are not shown any more."""
        wanted = {u.id for u in self._units}
        gone = [key for key in self.rows if key.value not in wanted]
        if len(gone) > FEW:
            self.clear()
        else:
            for key in gone:
                self.remove_row(key)
        return bool(gone)

    def _write(self) -> bool:
        """New rows, and the cells of known ones that changed."""
        new = False
        for unit in self._units:
            if unit.id not in self.rows:
                new = True
                self.add_row(*(self._cell(c, unit) for c in self._laid_out), key=unit.id)
                continue
            for column in self._laid_out:
                if column.live and (cell := self._cell(column, unit)) != self.get_cell(unit.id, column.title):
                    self.update_cell(unit.id, column.title, cell)
        return new

    def _cell(self, column: Column, unit: UnitRow) -> Cell:
        if column is _NUMBER:
            number = self._numbers.get(unit.id)
            return Cell("" if number is None else str(number), number)
        return column.cell(unit, self._total, self._palette)

    def _order(self) -> None:
        """By the rank of one column; what is unknown comes last either way round."""

        def rank(cell: Cell) -> tuple[bool, float | str]:
            return (cell.rank is None) != self._reversed, 0.0 if cell.rank is None else cell.rank

        by = self.sorted_by.title
        ranks = [rank(self.get_cell(id, by)) for id in self.ids]
        # A sort draws every cell anew, and the titles: one of them bears the mark.
        if (by, self._reversed) != self._ordered_by or ranks != sorted(ranks, reverse=self._reversed):
            self._ordered_by = by, self._reversed
            self.sort(by, key=rank, reverse=self._reversed)
