"""The bottom line: the keys that one needs most, as many as there is room for."""

from __future__ import annotations

from collections.abc import Iterable

from rich.cells import cell_len
from textual.content import Content
from textual.widget import Widget

from probe_tui.keys import KEYS, Key


class KeyLine(Widget):
    """Keys that do not fit are left out, for half a word helps nobody; the help has them all.

    Textual's own footer cuts them, and is composed anew each time that the focus moves.
    """

    DEFAULT_CSS = """
    KeyLine {
        dock: bottom; height: 1; background: $footer-background;
        link-style: none; link-background: $footer-background; link-color: $footer-description-foreground;
        link-style-hover: none;
    }
    """

    def render(self) -> Content:
        """Each is a button, too."""
        return Content.from_markup(
            " ".join(
                f"[@click=app.{key.action}][b $footer-key-foreground]{_sign(key)}[/] {key.label}[/]"
                for key in fitting(KEYS, self.size.width)
            )
        )


def fitting(keys: Iterable[Key], width: int) -> list[Key]:
    """The first of those that are to be shown, a space between."""
    chosen = []
    for key in keys:
        if key.shown:
            width -= cell_len(f"{_sign(key)} {key.label}")
            if width < 0:
                break
            chosen.append(key)
            width -= 1
    return chosen


def _sign(key: Key) -> str:
    return key.display or key.key
