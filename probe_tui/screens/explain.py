"""Explain: the page of one finding."""

from __future__ import annotations

from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType

from probe_tui.pages import explain
from probe_tui.screens.modal import Modal
from probe_tui.widgets.page import Page, PageScroll


class ExplainScreen(Modal[None]):
    """What `probe-tui --explain CODE` prints."""

    DEFAULT_CSS = """
    ExplainScreen { align: center middle; }
    ExplainScreen PageScroll {
        width: 92; max-width: 100%; height: auto; max-height: 100%; border: round $primary; padding: 0 1;
        background: $surface; scrollbar-size-vertical: 1; scrollbar-gutter: stable;
    }
    """
    AUTO_FOCUS = "PageScroll"
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,e,q", "dismiss", "close")]

    def __init__(self, code: str) -> None:
        super().__init__()
        self._code = code

    def compose(self) -> ComposeResult:
        """One scrolling page."""
        with PageScroll() as box:
            box.border_title = f"probe-tui --explain {self._code}"
            box.border_subtitle = "↑ ↓ scroll · escape closes"
            yield Page(lambda width: list(Text(explain(self._code, width)).wrap(self.app.console, width)))
