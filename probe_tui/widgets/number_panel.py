"""NumberPanel: a tab of text in which the cursor stops at the numbers of the report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.widgets import OptionList
from textual.widgets.option_list import Option

from probe_engine.report import Report
from probe_tui.renderables.cells import paragraph
from probe_tui.state import ScreenState
from probe_tui.widgets.panel import Panel


@dataclass(frozen=True)
class Line:
    """A row, or a drawing of some rows."""

    text: Text
    path: str = ""
    """Where the report holds its number, for jq; the cursor passes over lines without."""
    copied: str = ""
    """What `y` copies."""

    @classmethod
    def of(cls, rows: Sequence[Text], path: str = "", copied: str = "") -> Line:
        """One line of several rows."""
        return cls(Text("\n").join(rows), path, copied)


class NumberPanel(Panel):
    """One list for the whole tab: what does not fit is scrolled to, and one cursor reaches every number."""

    stage: ClassVar[str]
    """Whose results are shown."""
    root: ClassVar[str]
    """The part of the report that holds them."""

    def __init__(self) -> None:
        super().__init__()
        self._state: ScreenState | None = None

    def compose(self) -> ComposeResult:
        """The list."""
        yield NumberList()

    def lines(self, report: Report, width: int) -> list[Line]:
        """All that is shown; empty where there is nothing yet."""
        raise NotImplementedError

    def show(self, state: ScreenState) -> None:
        """Draws the numbers, or why there are none."""
        self._state = state
        numbers = self.query_one(NumberList)
        reason = paragraph(numbers.room, self.empty_reason(state, self.stage), self.palette.muted)
        numbers.draw(self.lines(state.report, numbers.room) or [Line.of(reason)])

    def redraw(self) -> None:
        """Draws the last state again."""
        if self._state is not None:
            self.show(self._state)

    def on_resize(self) -> None:
        """Rows are as wide as the panel."""
        self.redraw()

    def json_path(self) -> str:
        """Where the report holds the number under the cursor."""
        current = self.query_one(NumberList).current
        return self.root if current is None else current.path

    def copy_text(self) -> str:
        """The number under the cursor, with its unit and its interval."""
        current = self.query_one(NumberList).current
        return "" if current is None else current.copied


class NumberList(OptionList):
    """Keeps its cursor on the same number while the rows around it change."""

    DEFAULT_CSS = """
    NumberList { height: 1fr; border: none; padding: 0 1; background: $surface; }
    NumberList:focus { border: none; background-tint: $foreground 0%; }
    NumberList > .option-list--option-disabled { color: $foreground; }
    NumberList:focus > .option-list--option-highlighted {
        color: $foreground;
        background: $block-cursor-blurred-background;
        text-style: none;
    }
    """

    def __init__(self) -> None:
        super().__init__(markup=False)
        self._drawn: tuple[Line, ...] = ()

    @property
    def room(self) -> int:
        """Columns of a row; the scroll bar's are left free, so that rows don't jump when it comes."""
        return max(self.size.width - 2 - self.styles.scrollbar_size_vertical, 20)

    @property
    def current(self) -> Line | None:
        """The line under the cursor."""
        return None if self.highlighted is None else self._drawn[self.highlighted]

    def draw(self, lines: Sequence[Line]) -> None:
        """Shows these lines; what is the same already is not drawn again."""
        if tuple(lines) == self._drawn:
            return
        index, scrolled = self.highlighted, self.scroll_offset
        kept = self.current.path if self.current is not None else ""
        self._drawn = tuple(lines)
        self.set_options(Option(line.text, disabled=not line.path) for line in lines)
        paths = [line.path for line in lines]
        if index is None or paths[index : index + 1] != [kept]:
            index = next((i for i, path in enumerate(paths) if path and path == kept), None)
        self.highlighted = index if index is not None else next((i for i, p in enumerate(paths) if p), None)
        if index is not None:
            self.scroll_to(y=scrolled.y, animate=False, force=True)
