"""Influence: whose entropy moves by training on whom."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from rich.cells import cell_len
from rich.text import Text
from textual.binding import Binding, BindingType
from textual.events import Click

from probe_engine.report import Influence, Number
from probe_engine.spec import XForm
from probe_tui.estimates import short_unit, unit_numbers
from probe_tui.renderables.cells import cut, one_line, placard, row, wrap
from probe_tui.renderables.heatmap import heatmap
from probe_tui.renderables.numbers import number
from probe_tui.screens.prompt import Prompts, PromptScreen
from probe_tui.state import ScreenState
from probe_tui.widgets.panel import Panel
from probe_tui.x_form import by_form, influence_by, suffixed

CELL_WIDTH = 2
PAGE = 10
"""Rows that page up and page down move."""
FAR = 1_000_000
"""Beyond any column."""
LOW = 10
"""Rows below which the prompts leave all of them to the heatmap."""
TALL = 24
"""Rows from which a prompt gets three lines instead of one."""
TITLE = "whose entropy moves by training on whom"
KEYS = "enter opens, s S sort"
NO_VECTORS = "Needs kept vectors: run again with a larger --memory-budget, and with --method fused."

Order = tuple[int, ...]
"""Which unit of the report's K stands where on the screen."""


def by_row_mean(influence: Influence) -> Order:
    """The unit whose entropy falls most first, an unknown one last."""
    return _ascending([_mean(_others(row, u)) for u, row in enumerate(influence.K)])


def by_column_mean(influence: Influence) -> Order:
    """The unit that makes the entropy of the others fall most by training on it first."""
    columns = zip(*influence.K, strict=True)
    return _ascending([_mean(_others(column, v)) for v, column in enumerate(columns)])


@dataclass(frozen=True)
class Sorting:
    """One way to order rows and columns."""

    said: str
    """For the caption; `{row}` and `{column}` are the numbers of the cursor's units."""
    order: Callable[[Influence, int, int], Order]
    """Of the reported K and the cursor's row and column in it."""


SORTINGS = (
    Sorting("", lambda k, u, v: tuple(range(len(k.ids)))),
    Sorting("row mean", lambda k, u, v: by_row_mean(k)),
    Sorting("column mean", lambda k, u, v: by_column_mean(k)),
    Sorting("row {row}: who trains on it", lambda k, u, v: _ascending(k.K[u])),
    Sorting("column {column}: whom it trains", lambda k, u, v: _ascending([row[v] for row in k.K])),
)
"""In the order in which `s` goes through them; where entropy falls most comes first."""


def arranged(influence: Influence, order: Order) -> Influence:
    """Rows and columns in this order, so that what a unit does to itself stays on the diagonal."""
    return Influence(
        ids=[influence.ids[u] for u in order],
        K=[[influence.K[u][v] for v in order] for u in order],
    )


def largest(influence: Influence) -> tuple[int, int]:
    """Row and column of the largest |K| beside the diagonal, where a unit moves itself most."""
    cells = (
        (abs(x), u, v)
        for u, values in enumerate(influence.K)
        for v, x in enumerate(values)
        if x and math.isfinite(x) and u != v
    )
    _, u, v = max(cells, default=(0.0, 0, 0))
    return u, v


def _ascending(values: Sequence[Number]) -> Order:
    return tuple(sorted(range(len(values)), key=lambda n: (values[n] is None, values[n] or 0.0)))


def _others(values: Sequence[Number], own: int) -> list[Number]:
    return [x for n, x in enumerate(values) if n != own]


def _mean(values: Sequence[Number]) -> float | None:
    known = [v for v in values if v is not None]
    return math.fsum(known) / len(known) if known else None


class InfluencePanel(Panel, can_focus=True):
    """A heatmap with a cursor; below it the cell in words, and both of its prompts."""

    DEFAULT_CSS = "InfluencePanel { padding: 0 1; background: $surface; }"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up", "move(-1, 0)", "row above: whose entropy moves", show=False),
        Binding("down", "move(1, 0)", "row below", show=False),
        Binding("left", "move(0, -1)", "column to the left: who was trained on", show=False),
        Binding("right", "move(0, 1)", "column to the right", show=False),
        Binding("pageup", f"move(-{PAGE}, 0)", f"{PAGE} rows up", show=False),
        Binding("pagedown", f"move({PAGE}, 0)", f"{PAGE} rows down", show=False),
        Binding("home", f"move(0, -{FAR})", "first column", show=False),
        Binding("end", f"move(0, {FAR})", "last column", show=False),
        Binding("enter", "open", "open the row's prompt", show=False),
        Binding(
            "s", "sort(1)", "sort: row means, column means, this row, this column, as reported", show=False
        ),
        Binding("S", "sort(-1)", "the sorting before", show=False),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._state = ScreenState()
        self._told: tuple[Influence | None, XForm] = None, "score"
        """The report's, and the form of X that is the headline's."""
        self._reported: Influence | None = None
        """By that form."""
        self._shown: Influence | None = None
        """The reported one in the order of the screen."""
        self._order: Order = ()
        self._sorting = 0
        """Which of SORTINGS."""
        self._sorted_by = ""
        """The same in words."""
        self._numbers: dict[str, int] = {}
        """Of the units, by id: as in the tab Units."""
        self._cursor = (0, 0)
        """Row and column on the screen."""

    def show(self, state: ScreenState) -> None:
        """Draws K; the cursor stays on its cell while K is the same, and begins on the largest one."""
        self._state = state
        self._numbers = unit_numbers(state.report)
        told = state.report.influence, state.report.estimates.x_estimator
        if told[0] is not self._told[0] or told[1] != self._told[1]:
            self._told = told
            self._reported = influence_by(*told)
            self._sorting, self._sorted_by = 0, ""
            self._arrange((0, 0) if self._reported is None else largest(self._reported))
        self.refresh()

    def json_path(self) -> str:
        """Where the report holds the cell under the cursor."""
        if isinstance(self.app.screen, PromptScreen):
            return self.app.screen.json_path()
        if not self._order:
            return ".influence"
        u, v = self._reported_cell()
        return f".influence.{suffixed('K', self._told[1])}[{u}][{v}]"

    def copy_text(self) -> str:
        """The cell under the cursor and both of its prompts."""
        if isinstance(self.app.screen, PromptScreen):
            return self.app.screen.copy_text()
        if self._shown is None or not self._order:
            return ""
        u, v = self._cursor
        ids, change = self._shown.ids, number(self._shown.K[u][v], 6)
        unit = short_unit(self._state.report)
        return (
            f"training on {ids[v]} moves the entropy of {ids[u]} by {change} {unit}\n"
            f"entropy of {ids[u]}: {self._prompt(u)}\n"
            f"trained on {ids[v]}: {self._prompt(v)}"
        )

    def render(self) -> Text:
        """The heatmap, and below it the prompts; or why there is none."""
        width, height = self.size
        if not self._order:
            rows = placard(TITLE, self._why_empty(), width=width, height=height, style=self.palette.muted)
            return Text("\n").join(rows)
        rows = self._heatmap()
        self._mark(rows)
        self._caption(rows[0])
        return Text("\n").join([*rows, *self._prompts()])

    def on_click(self, event: Click) -> None:
        """To the cell under the pointer; once more on it opens the row's prompt. On the caption: sorts."""
        offset = event.get_content_offset(self)
        if offset is None:
            return
        clicked = self._cell_at(offset.x, offset.y)
        if offset.y == 0:
            self.action_sort(1)
        elif clicked is not None and clicked == self._cursor:
            self.action_open()
        elif clicked is not None:
            self._move_to(*clicked)

    def action_move(self, down: int, right: int) -> None:
        """So many cells on."""
        self._move_to(self._cursor[0] + down, self._cursor[1] + right)

    def action_sort(self, by: int) -> None:
        """The next order, or the one before; the cursor stays on its cell."""
        if self._order:
            u, v = self._cursor
            self._sorting = (self._sorting + by) % len(SORTINGS)
            said = SORTINGS[self._sorting].said
            self._sorted_by = said.format(row=self._number(u), column=self._number(v))
            self._arrange(self._reported_cell())
            self.refresh()

    def action_open(self) -> None:
        """The prompt whose entropy moves; its neighbours are those of the other rows."""
        if self._shown is None:
            return
        units = {unit.id: by_form(unit, self._told[1]) for unit in self._state.report.units}
        prompts = Prompts(
            [units[id] for id in self._shown.ids],
            self._cursor[0],
            nats=short_unit(self._state.report),
            palette=self.palette,
            numbers=self._numbers,
        )
        PromptScreen.open(self.app, prompts, self._go_to)

    def _go_to(self, id: str | None) -> None:
        if self._shown is not None and id in self._shown.ids:
            self._move_to(self._shown.ids.index(id), self._cursor[1])

    def _move_to(self, u: int, v: int) -> None:
        last = len(self._order) - 1
        self._cursor = min(max(u, 0), max(last, 0)), min(max(v, 0), max(last, 0))
        self.refresh()

    def _arrange(self, cell: tuple[int, int]) -> None:
        """In the order asked for, the cursor on this cell of the report."""
        if self._reported is None:
            self._shown, self._order, self._cursor = None, (), (0, 0)
            return
        self._order = SORTINGS[self._sorting].order(self._reported, *cell)
        self._shown = arranged(self._reported, self._order)
        self._cursor = self._order.index(cell[0]), self._order.index(cell[1])

    def _reported_cell(self) -> tuple[int, int]:
        return self._order[self._cursor[0]], self._order[self._cursor[1]]

    def _caption(self, caption: Text) -> None:
        """The form of X, the order and the keys, as far as there is room."""
        room = self.size.width - caption.cell_len
        form = " · Rao-Blackwell" if self._told[1] == "rao_blackwell" else ""
        order = form + (f" · by {self._sorted_by}" if self._sorted_by else "")
        if len(order) < room:
            caption.append(order)
            room -= len(order)
        if len(KEYS) < room - 1:
            caption.append(KEYS.rjust(room), self.palette.muted)

    def _mark(self, rows: list[Text]) -> None:
        """The row and the column of the cursor, on their labels: one cell among hundreds is hard to find."""
        spot = self._drawn_cursor(rows)
        if spot is not None:
            x, y = spot
            rows[1].stylize(self.palette.selected, x, x + CELL_WIDTH)
            label = str(self._number(self._cursor[0]))
            start = rows[y].plain.index(label)
            rows[y].stylize(self.palette.selected, start, start + len(label))

    def _cell_at(self, x: int, y: int) -> tuple[int, int] | None:
        """The cell drawn there, reckoned from where the cursor is drawn; None beside the cells."""
        rows = self._heatmap() if self._order else []
        spot = self._drawn_cursor(rows)
        if spot is None or y >= len(rows):
            return None
        u, v = self._cursor[0] + y - spot[1], self._cursor[1] + (x - spot[0]) // CELL_WIDTH
        before = rows[y].plain[: x + 1]
        # A row of cells begins with its number, and ends where that of its mean begins.
        return (
            (u, v)
            if 0 <= u < len(self._order)
            and before.lstrip().startswith(f"{self._number(u)} ")
            and "│" not in before
            else None
        )

    def _drawn_cursor(self, rows: list[Text]) -> tuple[int, int] | None:
        """Column and line of the one cell drawn as selected: a large K scrolls. None: it has no room."""
        return next(
            (
                (span.start, line)
                for line, drawn in enumerate(rows)
                for span in drawn.spans
                if str(span.style).endswith(self.palette.selected)
            ),
            None,
        )

    def _heatmap(self) -> list[Text]:
        return heatmap(
            self._shown,
            width=self.size.width,
            height=max(self.size.height - len(self._prompts()), 1),
            palette=self.palette,
            cursor=self._cursor,
            numbers=[self._number(position) for position in range(len(self._order))],
            means=True,
            unit=short_unit(self._state.report),
        )

    def _why_empty(self) -> str:
        method = self._state.report.method
        if method is not None and not method.vectors_kept:
            return NO_VECTORS
        return self.empty_reason(self._state, "estimate")

    def _prompts(self) -> list[Text]:
        """Both prompts of the cell under the cursor."""
        if self.size.height < LOW:
            return []
        u, v = self._cursor
        room = 3 if self.size.height >= TALL else 1
        return [
            *self._excerpt(f"entropy of {self._number(u)}  ", self._prompt(u), room),
            *self._excerpt(f"trained on {self._number(v)}  ", self._prompt(v), room),
        ]

    def _excerpt(self, label: str, prompt: str, lines: int) -> list[Text]:
        """As much of a prompt as these lines hold."""
        width = self.size.width
        room = max(width - cell_len(label), 2)
        wrapped = wrap(one_line(prompt)[: room * (lines + 1)], room)  # a prompt may be as long as a book
        if len(wrapped) > lines:
            wrapped = [*wrapped[: lines - 1], cut(" ".join(wrapped[lines - 1 :]), room)]
        indent = " " * cell_len(label)
        return [
            row(width, [(indent if n else label, self.palette.muted), (line, "")])
            for n, line in enumerate(wrapped)
        ]

    def _number(self, position: int) -> int:
        """Of the unit that stands there, as everywhere."""
        id = "" if self._shown is None else self._shown.ids[position]
        return self._numbers.get(id, self._order[position] + 1)

    def _prompt(self, position: int) -> str:
        """The text of the unit that stands there."""
        id = "" if self._shown is None else self._shown.ids[position]
        return next((unit.prompt for unit in self._state.report.units if unit.id == id), "")
