"""Prompt: one unit in full, and its neighbours under the arrow keys."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from rich.text import Text
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll

from probe_engine.report import UnitRow
from probe_tui.glossary import meanings
from probe_tui.renderables.cells import cut, paragraph
from probe_tui.renderables.numbers import number
from probe_tui.renderables.palette import DEFAULT, MONO, Palette
from probe_tui.renderables.prompt import prompt_detail
from probe_tui.screens.modal import Modal
from probe_tui.widgets.page import Page

KEYS = (
    "[@click=screen.before]← before[/] · [@click=screen.after]→ after[/] · "
    "[@click=app.copy]y copy[/] · [@click=screen.close]esc close[/]"
)
"""The mouse may press them, too."""
UNWRAPPED = 1_000_000
"""Columns of text that is copied: no line of it is broken."""


@dataclass(frozen=True)
class Prompts:
    """What is leafed through."""

    units: Sequence[UnitRow]
    """In the order of the list that they were opened from."""
    at: int
    """Where to begin."""
    nats: str
    """Unit of contributions."""
    palette: Palette = DEFAULT
    note: str = ""
    """What holds of all these numbers, such as "so far"."""
    numbers: Mapping[str, int] | None = None
    """Of the units, by id; without them a unit is known by its place in the list."""


class PromptScreen(Modal[str]):
    """Prompt, numbers and responses; leaves with the id of the unit that was looked at last."""

    NAME: ClassVar[str] = "prompt"

    DEFAULT_CSS = """
    PromptScreen { align: center middle; }
    PromptScreen VerticalScroll {
        width: 120; max-width: 100%; height: 100%; border: round $primary; padding: 0 1;
        background: $surface; scrollbar-size-vertical: 1; scrollbar-gutter: stable;
    }
    PromptScreen VerticalScroll { link-style: none; link-background: $surface; link-color: $primary; }
    PromptScreen #dots { dock: bottom; height: 2; padding-top: 1; background: $surface; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("left", "before", "the unit before"),
        Binding("right", "after", "the unit after"),
        Binding("y", "app.copy", "copy this unit"),
        Binding("c", "app.command", "copy the command and the JSON path"),
        Binding("escape,q,enter", "close", "close"),
    ]

    def __init__(self, prompts: Prompts) -> None:
        super().__init__()
        self._prompts = prompts
        self._at = prompts.at

    @classmethod
    def open(cls, app: App[object], prompts: Prompts, left: Callable[[str | None], None]) -> None:
        """Shows them on a screen that is made once: made anew, it takes twice as long to appear."""
        if not app.is_screen_installed(cls.NAME):
            app.install_screen(cls(prompts), cls.NAME)
        screen = app.get_screen(cls.NAME, cls)
        screen._prompts, screen._at = prompts, prompts.at
        app.push_screen(screen, left)

    @property
    def unit(self) -> UnitRow:
        """The one that is looked at."""
        return self._prompts.units[self._at]

    def compose(self) -> ComposeResult:
        """One scrolling page."""
        with VerticalScroll() as box:
            box.border_subtitle = KEYS
            yield Page(self._dots, id="dots")
            yield Page(self._detail, id="detail")

    def on_screen_resume(self) -> None:
        """Keys scroll the page."""
        self.query_one(VerticalScroll).focus()
        self._turn_to(self._at)

    def action_before(self) -> None:
        """The unit before; before the first comes the last."""
        self._turn_to(self._at - 1)

    def action_after(self) -> None:
        """The unit after; after the last comes the first."""
        self._turn_to(self._at + 1)

    def action_close(self) -> None:
        """Back to where it was opened."""
        self.dismiss(self.unit.id)

    def json_path(self) -> str:
        """Where the report holds this unit."""
        return unit_path(self.unit.id)

    def copy_text(self) -> str:
        """The unit as text."""
        return unit_text(self.unit, nats=self._prompts.nats)

    def _turn_to(self, at: int) -> None:
        self._at = at % len(self._prompts.units)
        self._say_which()
        for page in self.query(Page):
            page.refresh(layout=True)
        self.query_one(VerticalScroll).scroll_home(animate=False)

    def _say_which(self) -> None:
        shown = self._prompts
        note = f", {shown.note}" if shown.note else ""
        place, count = self._at + 1, len(shown.units)
        title = f"unit {place} of {count}{note}"
        if shown.numbers is not None and (known := shown.numbers.get(self.unit.id)) is not None:
            title = f"unit {known} of {len(shown.numbers)}{note} · {place}/{count} in this order"
        self.query_one(VerticalScroll).border_title = title

    def _detail(self, width: int) -> list[Text]:
        palette = self._prompts.palette
        rows = prompt_detail(self.unit, width=width, palette=palette, nats=self._prompts.nats)
        said = [row for meaning in meanings() for row in paragraph(width, meaning, palette.muted)]
        return [*rows, Text(), Text("what the symbols mean", style=palette.accent), *said]

    def _dots(self, width: int) -> list[Text]:
        return [Text(cut(dots(self.unit), width), style=self._prompts.palette.muted)]


def unit_path(id: str) -> str:
    """Where the report holds a unit, for jq."""
    return f".units[] | select(.id=={json.dumps(id, ensure_ascii=False)})"


def unit_text(unit: UnitRow, *, nats: str) -> str:
    """A unit as text, its lines as long as they come."""
    rows = prompt_detail(unit, width=UNWRAPPED, palette=MONO, nats=nats)
    return "\n".join([*(row.plain for row in rows), "", dots(unit)])


def dots(unit: UnitRow) -> str:
    """The dot products behind the contributions."""
    return f"without η: s {number(unit.s)} · t {number(unit.t)} · r {number(unit.r)}"
