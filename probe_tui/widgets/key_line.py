"""The bottom line: the keys that one needs most, as many as there is room for."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from rich.cells import cell_len
from rich.style import Style
from rich.text import Text
from textual.events import Click
from textual.widget import Widget

from probe_tui.keys import KEYS, Key


class KeyLine(Widget):
    """Keys that do not fit are left out, for half a word helps nobody; the help has them all.

    Textual's own footer cuts them, and is composed anew each time that the focus moves.
    """

    COMPONENT_CLASSES: ClassVar[set[str]] = {"key-line--key"}
    DEFAULT_CSS = """
    KeyLine { dock: bottom; height: 1; background: $footer-background; color: $footer-foreground; }
    KeyLine > .key-line--key { color: $footer-key-foreground; text-style: bold; }
    """

    def render(self) -> Text:
        """Each is a button, too."""
        sign = self.get_component_rich_style("key-line--key", partial=True)
        line = Text(no_wrap=True)
        for key in fitting(KEYS, self.size.width):
            press = Style(meta={"action": key.action})
            line.append(_sign(key), sign + press).append(f" {key.label} ", press)
        line.right_crop(1)
        return line

    async def on_click(self, event: Click) -> None:
        """Presses the key that lies there."""
        if action := event.style.meta.get("action"):
            await self.run_action(f"app.{action}")


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
