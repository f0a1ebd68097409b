"""Units: which of them move the entropy, as two histograms that grow, and as a table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import msgspec
from rich.cells import cell_len
from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container
from textual.widgets import Static

from probe_engine.report import Histogram, UnitRow
from probe_engine.spec import XForm
from probe_tui.estimates import short_unit, unit_numbers
from probe_tui.glossary import UNITS, meanings
from probe_tui.renderables.cells import cut, one_line, paragraph
from probe_tui.renderables.histogram import ValueRange, shared_edges
from probe_tui.renderables.numbers import number
from probe_tui.screens.prompt import Prompts, PromptScreen, unit_path, unit_text
from probe_tui.state import ScreenState
from probe_tui.widgets.histogram_view import Drawing, HistogramView
from probe_tui.widgets.page import Page
from probe_tui.widgets.panel import Panel
from probe_tui.widgets.unit_columns import total_change
from probe_tui.widgets.unit_table import UnitTable
from probe_tui.x_form import by_form, histograms_by, suffixed

Side = Literal["s", "r"]
SYMBOLS: dict[Side, str] = {"s": "+η·s_n", "r": "−η·r_n"}
OVER: dict[Side, str] = {"s": "over E", "r": "over all"}
HISTOGRAM_KEYS = "←→ range, ⇧ extends, l log"
TABLE_KEYS = "enter opens, s sorts, ⇧tab histograms"
FORM_KEY = ", g form"
"""Where there are two."""
FORMS: dict[XForm, str] = {"score": "score", "rao_blackwell": "R-B"}
CLEARS = "esc clears"
SIDE_BY_SIDE = 110
"""Columns from which the histograms stand beside each other: each has room for its title and a range."""
TALL = 34
"""Rows from which there is room for histograms above one another, and to say what the symbols mean; the
help says it always."""


def units_so_far(state: ScreenState, form: XForm = "score") -> Sequence[UnitRow]:
    """The units by a form of X, with their provisional contributions while they are measured."""
    provisional = state.provisional
    if provisional is None:
        return [by_form(u, form) for u in state.report.units]
    of_s, of_r = (getattr(provisional, suffixed(side, form)) for side in ("s", "r"))
    s = dict(zip(provisional.ids, of_s, strict=True))
    r = dict(zip(provisional.ids, of_r, strict=True))
    return [
        msgspec.structs.replace(u, contribution_s=s.get(u.id), contribution_r=r.get(u.id))
        for u in state.report.units
    ]


def contribution(unit: UnitRow, side: Side) -> float | None:
    """+η·s_n or −η·r_n."""
    return unit.contribution_s if side == "s" else unit.contribution_r


def histogram_text(shown: Histogram, bins: tuple[int, int] | None) -> str:
    """Edges and counts of these bins, or of all with what lies beside them; tabs between."""
    first, last = bins or (0, len(shown.counts) - 1)
    lines = [
        f"{shown.edges[bin]}\t{shown.edges[bin + 1]}\t{shown.counts[bin]}" for bin in range(first, last + 1)
    ]
    if bins is None:
        lines += [f"{name}\t\t{getattr(shown, name)}" for name in ("nan", "underflow", "overflow")]
    return "\n".join(["from\tto\tcount", *lines])


class UnitsPanel(Panel):
    """Histograms of the contributions above; below them the units of the chosen range, or all."""

    DEFAULT_CSS = """
    UnitsPanel { layout: vertical; background: $surface; }
    UnitsPanel UnitTable { dock: bottom; background: $surface; }
    UnitsPanel #plots { layout: horizontal; padding: 0 1; }
    UnitsPanel #r { margin-left: 2; }
    UnitsPanel.-stacked #plots { layout: vertical; }
    UnitsPanel.-stacked #r { margin-left: 0; }
    UnitsPanel #caption { height: 1; padding: 0 1; }
    UnitsPanel #legend { padding: 0 1; }
    UnitsPanel #reason { display: none; padding: 0 1; }
    UnitsPanel.-empty #reason { display: block; }
    UnitsPanel.-empty #plots, UnitsPanel.-empty #caption, UnitsPanel.-empty UnitTable,
    UnitsPanel.-empty #legend, UnitsPanel.-short #legend { display: none; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("l", "log_counts", "histograms: counts, or their logarithms", show=False),
        Binding("g", "other_form", "score or Rao-Blackwell form of the entropy gradient", show=False),
        Binding("escape", "clear_range", "give the chosen range up", show=False),
    ]

    words = meanings()

    def __init__(self) -> None:
        super().__init__()
        self._state = ScreenState()
        self._units: Sequence[UnitRow] = ()
        self._filter = ""
        self._log_counts = False
        self._asked: XForm | None = None
        """The form of X that somebody asked for."""

    def compose(self) -> ComposeResult:
        """The table first: it has the keys when the tab opens."""
        yield UnitTable()
        with Container(id="plots"):
            yield HistogramView(id="s")
            yield HistogramView(id="r")
        yield Static(id="caption", markup=False)
        yield Page(self._legend, id="legend")
        yield Static(id="reason", markup=False)

    def show(self, state: ScreenState) -> None:
        """Lets the histograms grow and brings the table up to date."""
        self._state = state
        self._units = units_so_far(state, self._form)
        self.set_class(not self._units, "-empty")
        if not self._units:
            self.query_one("#reason", Static).update(
                Text(self.empty_reason(state, "measure"), style=self.palette.muted)
            )
        self._show_histograms()
        self._show_table()

    def filter(self, text: str) -> None:
        """Shows the units whose prompt or id holds the text."""
        self._filter = text.casefold()
        self._show_table()

    def json_path(self) -> str:
        """Where the report holds what has the keys: a histogram, or one number of a unit."""
        if isinstance(self.app.screen, PromptScreen):
            return self.app.screen.json_path()
        view, table = self._focused_view, self._table
        if view is not None:
            return f".histograms.{suffixed(view.id or '', self._form)}"
        if table.selected is None:
            return ".units"
        field = table.sorted_by.field
        key = suffixed(field, self._form) if field.startswith("contribution") else field
        return f"{unit_path(table.selected)} | .{key}"

    def copy_text(self) -> str:
        """The histogram that has the keys as a table; else the selected unit."""
        if isinstance(self.app.screen, PromptScreen):
            return self.app.screen.copy_text()
        view = self._focused_view
        if view is not None:
            shown = view.drawing.histogram
            return "" if shown is None else histogram_text(shown, view.bins)
        selected = [u for u in self._units if u.id == self._table.selected]
        return unit_text(selected[0], nats=short_unit(self._state.report)) if selected else ""

    def on_resize(self) -> None:
        """Histograms above one another where it is narrow and high; the table gets the better half."""
        width, height = self.size
        stacked = width < SIDE_BY_SIDE and height >= TALL
        self.set_class(stacked, "-stacked")
        plots = min((height + 3) // 4 * 2, 20) if stacked else min(max(height * 4 // 9, 6), 18)
        self.query_one("#plots").styles.height = plots
        self.set_class(height < TALL, "-short")
        legend = 0 if height < TALL else len(self._legend(width - 2))
        self._table.styles.height = max(height - plots - 1 - legend, 1)
        self._show_caption()

    def _legend(self, width: int) -> list[Text]:
        return [row for said in meanings(*UNITS) for row in paragraph(width, said, self.palette.muted)]

    def on_histogram_view_range_changed(self, event: HistogramView.RangeChanged) -> None:
        """One range at a time."""
        event.stop()
        for view in self.query(HistogramView):
            if view is not event.view:
                view.clear()
        self._show_table()

    def on_histogram_view_title_clicked(self, event: HistogramView.TitleClicked) -> None:
        """As `l` does."""
        event.stop()
        self.action_log_counts()

    def on_unit_table_opened(self, event: UnitTable.Opened) -> None:
        """Opens the unit; its neighbours are those of the table."""
        event.stop()
        by_id = {u.id: u for u in self._units}
        prompts = Prompts(
            [by_id[id] for id in self._table.ids],
            self._table.cursor_row,
            nats=short_unit(self._state.report),
            palette=self.palette,
            note=", ".join(self._notes),
            numbers=unit_numbers(self._state.report),
        )
        PromptScreen.open(self.app, prompts, lambda id: self._table.select(id or ""))

    def on_descendant_focus(self) -> None:
        """The caption names the keys of what has them."""
        self._show_caption()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Without a range, escape is for others."""
        del parameters
        return action != "clear_range" or self._range() is not None

    def action_log_counts(self) -> None:
        """Bars as high as log(1 + count), and back."""
        self._log_counts = not self._log_counts
        self._show_histograms()

    def action_other_form(self) -> None:
        """Contributions by the other form of X, where there are two."""
        if not self._both_forms:
            self.notify("There is the score form alone: run with --x-estimator both.", severity="warning")
            return
        self._asked = "score" if self._form == "rao_blackwell" else "rao_blackwell"
        self.show(self._state)

    def action_clear_range(self) -> None:
        """All units again."""
        for view in self.query(HistogramView):
            view.clear()
        self._show_table()

    @property
    def _table(self) -> UnitTable:
        return self.query_one(UnitTable)

    @property
    def _focused_view(self) -> HistogramView | None:
        return next((view for view in self.query(HistogramView) if view.has_focus), None)

    def _range(self) -> tuple[Side, ValueRange] | None:
        sides: tuple[Side, Side] = ("s", "r")
        for side in sides:
            chosen = self.query_one(f"#{side}", HistogramView).chosen
            if chosen is not None:
                return side, chosen
        return None

    @property
    def _form(self) -> XForm:
        """The form of X whose numbers are shown: the headline's, unless another was asked for."""
        return (self._asked if self._both_forms else None) or self._state.report.estimates.x_estimator

    @property
    def _notes(self) -> list[str]:
        """What holds of all contributions that are shown: their form of two, and that they may change."""
        form = [FORMS[self._form]] if self._both_forms else []
        return form + (["so far"] if self._state.provisional is not None else [])

    @property
    def _both_forms(self) -> bool:
        return any(histograms_by(self._state.report.histograms, "rao_blackwell"))

    def _show_histograms(self) -> None:
        of_s, of_r = histograms_by(self._state.report.histograms, self._form)
        shown: dict[Side, Histogram | None] = {"s": of_s, "r": of_r}
        for side, one in shown.items():
            self.query_one(f"#{side}", HistogramView).show(
                Drawing(
                    histogram=one,
                    axis=shared_edges(shown.values()),
                    symbol=SYMBOLS[side],
                    title=", ".join([f"{SYMBOLS[side]} {OVER[side]}", *self._notes]),
                    unit=short_unit(self._state.report),
                    reason=self._why_empty(side),
                    log_counts=self._log_counts,
                    palette=self.palette,
                )
            )

    def _why_empty(self, side: Side) -> str:
        report = self._state.report
        if side == "s" and report.histograms.r is not None:
            return "no unit of E is measured yet" if self._state.ended is None else "no unit is in E"
        if self._state.ended is not None:
            return self.empty_reason(self._state, "measure")
        if report.method is not None and report.method.passes > 1:
            return "comes with the second pass over the units"
        return "comes as soon as some units are measured"

    def _show_table(self) -> None:
        self._table.show(
            self._matching(),
            total_change(self._units),
            unit_numbers(self._state.report),
            self.palette,
            reason=self._why_none(),
        )
        self._show_caption()

    def _matching(self) -> list[UnitRow]:
        matching = [
            u for u in self._units if self._filter in u.prompt.casefold() or self._filter in u.id.casefold()
        ]
        chosen = self._range()
        if chosen is None:
            return matching
        side, values = chosen
        return [u for u in matching if (c := contribution(u, side)) is not None and c in values]

    def _why_none(self) -> str:
        """What leaves no unit, and the key that brings them back."""
        filtered = f"No unit holds “{one_line(self._filter)}”"
        if self._range() is None:
            return f"{filtered}: escape clears the filter."
        if not self._filter:
            return "No unit lies in the range: ← → move it, escape gives it up."
        return f"{filtered} and lies in the range: escape gives the range up, once more clears the filter."

    def _show_caption(self) -> None:
        """How many there are, what is left out and why; on the right, keys, for which words give way."""
        if not self.size.width:
            return  # hidden: the first resize draws it
        width = self.size.width - 2
        keys = HISTOGRAM_KEYS if self._focused_view is not None else TABLE_KEYS
        if self._both_forms:
            keys += FORM_KEY
        limits = self._limits()
        spellings = [self._left(limits)] if limits else self._counts()
        hints = [f"{CLEARS}, {keys}", CLEARS] if limits else [keys]
        fitting = ((s, h) for s in spellings for h in hints if cell_len(s) + cell_len(h) + 2 <= width)
        said, hint = next(fitting, (cut(spellings[-1], width), ""))
        caption = Text(said).append(hint.rjust(width - cell_len(said)), self.palette.muted)
        self.query_one("#caption", Static).update(caption, layout=False)

    def _counts(self) -> list[str]:
        """How many units, and what their changes make together; from long to short."""
        provisional, rollouts = self._state.provisional, self._state.report.rollouts
        total = len(self._units) if rollouts is None or provisional is None else rollouts.prompts
        so_far = "" if provisional is None else f"so far, {len(provisional.ids)} of "
        u = self._state.report.estimates.by(self._form).u_statistic
        mean = "" if u is None else f" {number(u.delta_h1)}"
        units = f"{so_far}{total} units"
        return [
            f"{units}; mean −η·r_n = U-statistic's δH₁{mean}, of the preconditioned step",
            f"{units}; mean −η·r_n{mean}",
            units,
        ]

    def _limits(self) -> list[str]:
        """What leaves units out."""
        limits = []
        chosen = self._range()
        if chosen is not None:
            side, values = chosen
            limits.append(f"{SYMBOLS[side]} {number(values.lo)} … {number(values.hi)}")
        if self._filter:
            limits.append(f"“{one_line(self._filter)}”")
        return limits

    def _left(self, limits: Sequence[str]) -> str:
        so_far = "" if self._state.provisional is None else " so far"
        return f"{len(self._table.ids)} of {len(self._units)} units{so_far} with {', '.join(limits)}"
