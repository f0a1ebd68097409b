"""Checks: every finding, what fails first; below it what the selected one means and what to type."""

from __future__ import annotations

from rich.text import Text
from textual.app import ComposeResult
from textual.containers import VerticalScroll
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

from probe_engine.report import Finding
from probe_tui.renderables.cells import row
from probe_tui.renderables.findings import attention, finding_detail, finding_row, grouped
from probe_tui.state import SEVERITY, ScreenState
from probe_tui.widgets.panel import Panel

ATTENTION = ("crash", "fail", "warn")


class ChecksPanel(Panel):
    """A list of findings by family, with the failed ones repeated on top, and their details."""

    DEFAULT_CSS = """
    ChecksPanel { layout: vertical; }
    ChecksPanel OptionList, ChecksPanel OptionList:focus {
        height: 1fr; border: none; padding: 0 1; background: $surface;
    }
    ChecksPanel VerticalScroll { height: 35%; min-height: 5; border-top: solid $primary; padding: 0 1; }
    """

    def __init__(self) -> None:
        super().__init__()
        self._findings: list[Finding] = []
        self._shown: tuple[int, int, str] = (-1, 0, "")
        self._filter = ""
        self._by_option: dict[str, Finding] = {}
        self._reason = ""

    def compose(self) -> ComposeResult:
        """A list above, the detail below."""
        yield OptionList(markup=False)
        with VerticalScroll():
            yield Static(id="detail", markup=False)

    def show(self, state: ScreenState) -> None:
        """Adds what is new; keeps the selection."""
        self._findings = state.report.findings
        self._reason = self.empty_reason(state, "load")
        self._fill()

    def attention(self, state: ScreenState) -> str:
        """How many findings fail or warn."""
        return str(attention(state.report.findings))

    def filter(self, text: str) -> None:
        """Shows the findings whose code, title, status or message holds the text."""
        self._filter = text.lower()
        self._fill()

    @property
    def selected(self) -> Finding | None:
        """The finding under the cursor."""
        options = self.query_one(OptionList)
        if options.highlighted is None:
            return None
        option = options.get_option_at_index(options.highlighted)
        return self._by_option.get(option.id or "")

    def json_path(self) -> str:
        """Where the report holds the selected finding."""
        found = self.selected
        return ".findings" if found is None else f'.findings[] | select(.code=="{found.code}")'

    def copy_text(self) -> str:
        """The selected finding's commands, else its remedy, else its message."""
        found = self.selected
        if found is None:
            return ""
        return "\n".join(found.remedy.commands) or found.remedy.text or found.message

    def on_option_list_option_highlighted(self, event: OptionList.OptionHighlighted) -> None:
        """Shows the detail of what the cursor is on."""
        event.stop()
        self._detail()

    def on_resize(self) -> None:
        """Rows are cut to the width."""
        self._shown = (-1, 0, "")
        self._fill()

    def _fill(self) -> None:
        options = self.query_one(OptionList)
        width = max(20, options.content_size.width - 2)
        key = (len(self._findings), width, self._filter)
        if key == self._shown:
            return
        self._shown = key
        chosen = options.highlighted
        kept = None if chosen is None else options.get_option_at_index(chosen).id
        matching = [f for f in self._findings if self._matches(f)]
        rows = self._rows(matching, width)
        options.clear_options()
        options.add_options(rows)
        ids = [o.id for o in rows]
        if kept is not None and kept in ids:
            options.highlighted = ids.index(kept)
        else:
            options.highlighted = next((i for i, o in enumerate(rows) if not o.disabled), None)
        if not rows:
            self.query_one("#detail", Static).update(Text(self._reason))
        else:
            self._detail()

    def _rows(self, matching: list[Finding], width: int) -> list[Option]:
        """The cause is the first thing that one sees: what needs attention stands on top, worst first."""
        self._by_option = {}
        rows: list[Option] = []

        def add(key: str, found: Finding) -> None:
            self._by_option[key] = found
            rows.append(Option(finding_row(found, width=width, palette=self.palette), id=key))

        urgent = sorted(
            (f for f in matching if f.status in ATTENTION), key=lambda f: -SEVERITY.index(f.status)
        )
        if urgent:
            rows.append(Option(self._heading("NEEDS ATTENTION"), disabled=True))
            for index, found in enumerate(urgent):
                add(f"urgent-{index}-{found.code}", found)
        for family, members in grouped(matching):
            rows.append(Option(self._heading(family.upper()), disabled=True))
            for index, found in enumerate(members):
                add(f"{family}-{index}-{found.code}", found)
        return rows

    def _heading(self, text: str) -> Text:
        return row(80, [(text, self.palette.accent)])

    def _matches(self, found: Finding) -> bool:
        return self._filter in f"{found.code} {found.title} {found.status} {found.message}".lower()

    def _detail(self) -> None:
        found = self.selected
        detail = self.query_one("#detail", Static)
        if found is not None:
            width = max(20, detail.content_size.width)
            detail.update(Text("\n").join(finding_detail(found, width=width, palette=self.palette)))
