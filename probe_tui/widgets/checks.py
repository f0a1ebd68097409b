"""Checks: every finding, what fails first, what is worth knowing next; below it what the selected one means
and what to type."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.widgets import OptionList
from textual.widgets.option_list import Option

from probe_engine.report import Finding
from probe_tui.flow_answer import FlowAnswer, flow_answer
from probe_tui.plain import MARKS
from probe_tui.renderables.cells import paragraph, row
from probe_tui.renderables.findings import attention, causes_first, finding_detail, finding_row, grouped
from probe_tui.renderables.palette import Palette
from probe_tui.state import ScreenState
from probe_tui.widgets.page import Page
from probe_tui.widgets.panel import Panel

Shown = tuple[tuple[Finding, ...], FlowAnswer | None, int, str, str, Palette]
"""What the list was made of: findings, the answer above them, width, filter, why it is empty, styles."""


class ChecksPanel(Panel):
    """A list of findings by family, with all that is more than ok repeated on top, and their details."""

    DEFAULT_CSS = """
    ChecksPanel { layout: vertical; }
    ChecksPanel OptionList, ChecksPanel OptionList:focus {
        height: 1fr; border: none; padding: 0 1; background: $surface;
    }
    ChecksPanel OptionList > .option-list--option-disabled { color: $foreground; }
    ChecksPanel OptionList:focus { background-tint: $foreground 0%; }
    ChecksPanel OptionList:focus > .option-list--option-highlighted {
        color: $foreground;
        background: $block-cursor-blurred-background;
        text-style: none;
    }
    ChecksPanel VerticalScroll { height: 35%; min-height: 5; border-top: solid $primary; padding: 0 1; }
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("Y", "copy_snippet", "copy the lines that show the fault without this tool", show=False),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._findings: Sequence[Finding] = ()
        self._answer: FlowAnswer | None = None
        self._shown: Shown | None = None
        self._placed: str | None = None
        """Where the cursor was put, not moved to: it stays on top while findings come in."""
        self._filter = ""
        self._by_option: dict[str, Finding] = {}
        self._read: Finding | None = None
        """In the pane below."""
        self._reason = ""

    def compose(self) -> ComposeResult:
        """A list above, the detail below."""
        yield OptionList(markup=False)
        with VerticalScroll():
            yield Page(self._detail)

    def show(self, state: ScreenState) -> None:
        """Adds what is new; keeps the selection."""
        self._findings = state.report.findings
        self._answer = flow_answer(
            state.report.findings, state.report.gradient_flow, over=state.ended is not None
        )
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

    def action_copy_snippet(self) -> None:
        """The selected finding's snippet, where it has one."""
        snippet = None if self.selected is None else self.selected.evidence.get("snippet")
        self.probe_app.take(snippet if isinstance(snippet, str) else "")

    def on_option_list_option_highlighted(self, event: OptionList.OptionHighlighted) -> None:
        """Shows the detail of what the cursor is on."""
        event.stop()
        self._turn_page()

    def on_resize(self) -> None:
        """Rows are cut to the width."""
        self._fill()

    def _fill(self) -> None:
        options = self.query_one(OptionList)
        width = max(20, options.outer_size.width - 2 - options.styles.scrollbar_size_vertical)
        key = (tuple(self._findings), self._answer, width, self._filter, self._reason, self.palette)
        if key == self._shown:
            return
        self._shown = key
        at, scrolled = options.highlighted, options.scroll_offset
        kept = None if at is None else options.get_option_at_index(at).id
        rows = self._rows([f for f in self._findings if self._matches(f)], width)
        options.set_options(rows)
        ids = [o.id for o in rows]
        if kept is not None and kept != self._placed and kept in ids:
            options.highlighted = ids.index(kept)
            options.scroll_to(y=scrolled.y, animate=False, force=True)
        else:
            options.highlighted = next((i for i, o in enumerate(rows) if not o.disabled), None)
            self._placed = None if options.highlighted is None else ids[options.highlighted]
        self._turn_page()

    def _rows(self, matching: Sequence[Finding], width: int) -> list[Option]:
        """The cause is the first thing that one sees: what needs attention stands on top, worst first,
        with what follows from it indented below."""
        self._by_option = {}
        rows: list[Option] = []
        numbers: Counter[tuple[str, str]] = Counter()

        def add(block: str, found: Finding, *, under_cause: bool = False) -> None:
            # Known by its code, not by its place: worse findings come in above it.
            numbers[block, found.code] += 1
            key = f"{block} {found.code} {numbers[block, found.code]}"
            self._by_option[key] = found
            line = finding_row(found, width=width, palette=self.palette, under_cause=under_cause)
            rows.append(Option(line, id=key))

        if self._answer is not None and not self._filter:
            rows += [Option(line, disabled=True) for line in self._answered(self._answer, width)]
        urgent = causes_first(matching)
        infos = [f for f in matching if f.status == "info"]
        if urgent:
            # Where the list is short, the infos lie below its edge: the first line counts them, too.
            counts = [attention(matching).words, *([f"{len(infos)} info below"] if infos else [])]
            rows.append(Option(self._heading(f"needs attention: {', '.join(counts)}"), disabled=True))
            for found, under_cause in urgent:
                add("urgent", found, under_cause=under_cause)
        if infos:
            rows.append(Option(self._heading(f"good to know: {len(infos)} info"), disabled=True))
            for found in infos:
                add("info", found)
        for family, members in grouped(matching):
            rows.append(Option(self._heading(family), disabled=True))
            for found in members:
                add(family, found)
        return rows

    def _answered(self, answer: FlowAnswer, width: int) -> list[Text]:
        """The first thing that one wants to know."""
        style = self.palette.status(answer.status)
        return paragraph(width, answer.sentence, style, first=f"{MARKS[answer.status]} ", indent="  ")

    def _heading(self, text: str) -> Text:
        return row(80, [(text.upper(), self.palette.accent)])

    def _matches(self, found: Finding) -> bool:
        return self._filter in f"{found.code} {found.title} {found.status} {found.message}".lower()

    def _detail(self, width: int) -> list[Text]:
        found = self.selected
        if found is not None:
            return finding_detail(found, width=width, palette=self.palette)
        nothing = f"No finding holds “{self._filter}”." if self._findings else self._reason
        return paragraph(width, nothing, self.palette.muted)

    def _turn_page(self) -> None:
        self.query_one(Page).refresh(layout=True)
        if self.selected != self._read:
            self._read = self.selected
            self.query_one(VerticalScroll).scroll_home(animate=False)
