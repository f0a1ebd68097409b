"""Help: every key from the table that dispatches them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType

from probe_tui.keys import KEYS, Key
from probe_tui.renderables.cells import paragraph
from probe_tui.screens.modal import Modal
from probe_tui.widgets.page import Page, PageScroll

SIGNS = "left of zero, negative: entropy falls · right of zero, positive: entropy rises"


class HelpScreen(Modal[None]):
    """The keys by group, then those of the panel that has the focus."""

    DEFAULT_CSS = """
    HelpScreen { align: center middle; }
    HelpScreen PageScroll {
        width: 76; max-width: 100%; height: auto; max-height: 100%; border: round $primary; padding: 0 1;
        background: $surface; scrollbar-size-vertical: 1; scrollbar-gutter: stable;
    }
    """
    AUTO_FOCUS = "PageScroll"
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,question_mark,q", "dismiss", "close")]

    def __init__(
        self, extra: Sequence[tuple[str, Sequence[BindingType]]] = (), words: Sequence[str] = ()
    ) -> None:
        super().__init__()
        self._extra = extra
        self._words = words

    def compose(self) -> ComposeResult:
        """One scrolling text."""
        with PageScroll() as box:
            box.border_title = "Keys"
            box.border_subtitle = "↑ ↓ scroll · escape closes"
            yield Page(lambda width: help_lines(KEYS, self._extra, width, self._words))


def help_lines(
    keys: Sequence[Key],
    extra: Sequence[tuple[str, Sequence[BindingType]]],
    width: int,
    symbols: Sequence[str] = (),
) -> list[Text]:
    """The table as text: app-wide keys by group, then the keys of single widgets and what symbols mean."""
    tables = [
        (group, [(k.display or k.key, k.help) for k in members])
        for group, members in groupby(sorted(keys, key=lambda k: ORDER.index(k.group)), key=lambda k: k.group)
    ]
    for title, bindings in extra:
        typed = [b for b in bindings if isinstance(b, Binding) and b.description]
        tables.append((title, [(b.key_display or b.key, b.description) for b in typed]))
    lines: list[Text] = []
    for title, entries in tables:
        lines += paragraph(width, title, "bold") if entries else []
        for key, words in entries:
            lines += paragraph(width, words, first=f"  {shown(key):<10} ", indent=" " * 13)
    lines += paragraph(width, "Symbols", "bold") if symbols else []
    for meaning in symbols:
        lines += paragraph(width, meaning, first="  ", indent="    ")
    return [*lines, Text(), *paragraph(width, SIGNS, "dim")]


ORDER = ("Run", "Tabs", "Look", "Take", "Replay")
NAMES = {"slash": "/", "question_mark": "?", "left": "←", "right": "→", "up": "↑", "down": "↓"}


def shown(key: str) -> str:
    """A key as people write it: `shift+left` is ⇧←."""
    parts = []
    for alternative in key.split(",") if len(key) > 1 else [key]:
        *modifiers, name = alternative.split("+")
        marks = "".join({"shift": "⇧", "ctrl": "^"}.get(m, f"{m}+") for m in modifiers)
        parts.append(marks + NAMES.get(name, name))
    return " ".join(parts)
