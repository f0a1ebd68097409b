"""UnitTable: a row a unit, sorted; only the rows in sight are drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from rich.cells import cell_len, set_cell_size
from rich.segment import Segment
from rich.style import Style
from textual.binding import Binding, BindingType
from textual.events import Click
from textual.geometry import Region, Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from probe_engine.report import UnitRow
from probe_tui.renderables.cells import wrap
from probe_tui.renderables.palette import DEFAULT, Palette
from probe_tui.widgets.unit_columns import GAP, LARGEST, Among, Column, columns

HEADER = 1
"""Rows of titles, which stay in sight."""


class UnitTable(ScrollView, can_focus=True):
    """Keeps cursor and scroll while rows come, change and move.

    On the first row the cursor stays there, whatever unit is the first; elsewhere it follows its unit.

    Textual's DataTable holds, measures and draws cell by cell, for tens of milliseconds when a tab opens.
    """

    ALLOW_SELECT = False
    COMPONENT_CLASSES: ClassVar[set[str]] = {"unit-table--titles", "unit-table--cursor"}
    DEFAULT_CSS = """
    UnitTable {
        background: $surface; color: $foreground; overflow-x: hidden; scrollbar-size-vertical: 1;
    }
    UnitTable > .unit-table--titles { background: $panel; color: $foreground; text-style: bold; }
    UnitTable > .unit-table--cursor {
        background: $block-cursor-blurred-background; color: $block-cursor-blurred-foreground;
        text-style: $block-cursor-blurred-text-style;
    }
    UnitTable:focus { background-tint: $foreground 5%; }
    UnitTable:focus > .unit-table--titles { background-tint: $foreground 5%; }
    UnitTable:focus > .unit-table--cursor {
        background: $block-cursor-background; color: $block-cursor-foreground;
        text-style: $block-cursor-text-style;
    }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up", "cursor(-1)", show=False),
        Binding("down", "cursor(1)", show=False),
        Binding("pageup", "cursor_page(-1)", show=False),
        Binding("pagedown", "cursor_page(1)", show=False),
        Binding("home,ctrl+home", "cursor_end(-1)", show=False),
        Binding("end,ctrl+end", "cursor_end(1)", show=False),
        Binding("enter", "open", show=False),
        Binding("s", "sort_next", "sort by the next column", show=False),
        Binding("S", "reverse", "reverse the order", show=False),
    ]

    class Opened(Message):
        """Somebody wants to see the unit under the cursor."""

    def __init__(self) -> None:
        super().__init__()
        self.cursor_row = 0
        self._units: Sequence[UnitRow] = ()
        """In their order on the screen."""
        self._among = Among(0.0, {})
        self._palette = DEFAULT
        self._reason = ""
        self._sorted_by = LARGEST.title
        self._reversed = False

    @property
    def columns(self) -> tuple[Column, ...]:
        """Those that there is room for."""
        return columns(self._room)

    @property
    def sorted_by(self) -> Column:
        """The column that gives the order; the first one where it has no room."""
        return next((c for c in self.columns if c.title == self._sorted_by), LARGEST)

    @property
    def selected(self) -> str | None:
        """The id of the unit under the cursor."""
        return self._units[self.cursor_row].id if self._units else None

    @property
    def ids(self) -> list[str]:
        """Of the units, from the top."""
        return [unit.id for unit in self._units]

    def show(
        self,
        units: Sequence[UnitRow],
        total: float,
        numbers: Mapping[str, int],
        palette: Palette,
        *,
        reason: str = "",
    ) -> None:
        """Shows exactly these units, known by their numbers, or why there are none.

        Args:
            total: of which a unit's share is a part.
            numbers: by id.
            reason: why there are none.
        """
        self._among, self._palette, self._reason = Among(total, numbers), palette, reason
        self._arrange(units)

    def select(self, id: str) -> None:
        """Puts the cursor on a unit, if it is shown."""
        if id in self.ids:
            self._move_to(self.ids.index(id))

    def sort_by(self, title: str) -> None:
        """Sorts by a column; by the same once more: the other way round."""
        self._reversed = title == self.sorted_by.title and not self._reversed
        self._sorted_by = title
        self._arrange(self._units)

    def action_sort_next(self) -> None:
        """Sorts by the column right of the present one."""
        titles = [c.title for c in self.columns]
        self.sort_by(titles[(titles.index(self.sorted_by.title) + 1) % len(titles)])

    def action_reverse(self) -> None:
        """The other way round."""
        self.sort_by(self.sorted_by.title)

    def action_cursor(self, rows: int) -> None:
        """Up or down."""
        self._move_to(self.cursor_row + rows)

    def action_cursor_page(self, pages: int) -> None:
        """As many rows as there are in sight."""
        self._move_to(self.cursor_row + pages * self._in_sight)

    def action_cursor_end(self, direction: int) -> None:
        """To the first or the last row."""
        self._move_to(direction * len(self._units))

    def action_open(self) -> None:
        """As a click on the row under the cursor does."""
        if self._units:
            self.post_message(self.Opened())

    def on_resize(self) -> None:
        """Columns come and go with the width, and with them what gives the order."""
        self._arrange(self._units)

    def on_click(self, event: Click) -> None:
        """On a title: sorts. On a row: puts the cursor there; once more: opens it."""
        row = self.scroll_offset.y + event.y - HEADER
        if event.y < HEADER:
            self._click_title(event.x)
        elif row < len(self._units):
            event.stop()
            if row == self.cursor_row:
                self.action_open()
            else:
                self._move_to(row)

    def render_line(self, y: int) -> Strip:
        """The titles, or a unit."""
        row = self.scroll_offset.y + y - HEADER
        if y < HEADER:
            return self._strip([(self._title(c), "") for c in self.columns], "unit-table--titles")
        if not self._units:
            return self._said(y - HEADER)
        if row >= len(self._units):
            return Strip.blank(self.size.width, self.rich_style)
        unit = self._units[row]
        cells = [(c.text(unit, self._among), c.style(unit, self._palette)) for c in self.columns]
        return self._strip(cells, "unit-table--cursor" if row == self.cursor_row else "")

    @property
    def _room(self) -> int:
        """Columns beside the scroll bar, whether there is one or not."""
        return max(self.size.width - self.styles.scrollbar_size_vertical, 0)

    @property
    def _in_sight(self) -> int:
        """Rows that there is room for."""
        return max(self.size.height - HEADER, 1)

    def _arrange(self, units: Sequence[UnitRow]) -> None:
        """Sorts, and brings cursor and scroll to where they were."""
        kept, row, top = self.selected, self.cursor_row, self.scroll_offset.y
        self._units = self._in_order(units)
        at = next((i for i, unit in enumerate(self._units) if unit.id == kept), row) if row else 0
        if 0 <= row - top < self._in_sight:
            top += at - row  # what is looked at stays where it is on the screen
        self.cursor_row = max(min(at, len(self._units) - 1), 0)
        self.virtual_size = Size(self._room, HEADER + len(self._units))
        self._scroll(top)
        self.refresh()

    def _in_order(self, units: Sequence[UnitRow]) -> Sequence[UnitRow]:
        """By the rank of one column; what is unknown comes last either way round."""
        rank = self.sorted_by.rank

        def key(unit: UnitRow) -> tuple[bool, float | str]:
            at = rank(unit, self._among)
            return (at is None) != self._reversed, 0.0 if at is None else at

        return sorted(units, key=key, reverse=self._reversed)

    def _move_to(self, row: int) -> None:
        before, self.cursor_row = self.cursor_row, max(min(row, len(self._units) - 1), 0)
        top = self.scroll_offset.y
        self._scroll(min(max(top, self.cursor_row - self._in_sight + 1), self.cursor_row))
        for changed in (before, self.cursor_row):
            self.refresh(Region(0, changed - self.scroll_offset.y + HEADER, self.size.width, 1))

    def _scroll(self, top: int) -> None:
        # Forced: until the next layout the table does not know that it has a scroll bar.
        self.scroll_to(y=max(top, 0), animate=False, force=True, immediate=True)

    def _click_title(self, x: int) -> None:
        for column in self.columns:
            x -= column.width + GAP
            if x < 0:
                self.sort_by(column.title)
                return

    def _said(self, y: int) -> Strip:
        """A line of the reason why there are no units."""
        lines = wrap(self._reason, self.size.width - GAP)
        text = " " * (GAP // 2) + lines[y] if y < len(lines) else ""
        style = self.rich_style + Style.parse(self._palette.muted)
        return Strip([Segment(text, style)]).adjust_cell_length(self.size.width, self.rich_style)

    def _title(self, column: Column) -> str:
        mark = "" if column is not self.sorted_by else " ▴" if self._reversed else " ▾"
        return f"{column.title}{mark}"

    def _strip(self, cells: Sequence[tuple[str, str]], component: str) -> Strip:
        """One line: its cells, each with its style, between their gaps."""
        base = self.get_component_rich_style(component) if component else self.rich_style
        padding = Segment(" " * (GAP // 2), base)
        segments = []
        for column, (text, sign) in zip(self.columns, cells, strict=True):
            # The cursor's own colour is the one that can be read on it.
            style = base if component or not sign else base + Style.parse(sign)
            segments += [padding, Segment(_aligned(text, column), style), padding]
        return Strip(segments).adjust_cell_length(self.size.width, base).simplify()


def _aligned(text: str, column: Column) -> str:
    """As wide as the column."""
    indent = " " * max(column.width - cell_len(text), 0) if column.right else ""
    return set_cell_size(indent + text, column.width)
