"""The bottom line: the keys that one needs most, as many as there is room for; and what they did."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import ClassVar

from rich.cells import cell_len
from rich.style import Style
from rich.text import Text
from textual.events import Click
from textual.timer import Timer
from textual.widget import Widget

from probe_tui.keys import COMMANDS, KEYS, Key
from probe_tui.renderables.cells import row

SAID_SECONDS = 4.0
"""How long a message stands there."""


class KeyLine(Widget):
    """Keys that do nothing now are left out, and those that do not fit: half a word helps nobody. The help
    has them all.

    Textual's own footer cuts them, and is composed anew each time that the focus moves.
    """

    COMPONENT_CLASSES: ClassVar[set[str]] = {"key-line--key"}
    DEFAULT_CSS = """
    KeyLine { dock: bottom; height: 1; background: $footer-background; color: $footer-foreground; }
    KeyLine > .key-line--key { color: $footer-key-foreground; text-style: bold; }
    """

    def __init__(self, commands: Collection[str] = ()) -> None:
        super().__init__()
        self._commands = commands
        self._message: tuple[str, str] | None = None
        """What was said last, and its style."""
        self._silence: Timer | None = None

    def show(self, commands: Collection[str]) -> None:
        """Offers these of the actions that a session may refuse."""
        if commands != self._commands:
            self._commands = commands
            self.refresh()

    def say(self, text: str, style: str = "") -> bool:
        """A word in place of the keys, for some seconds; covers nothing. False where it has no room."""
        if cell_len(text) > self.size.width - 2:
            return False
        if self._silence is not None:
            self._silence.stop()
        self._message = text, style
        self._silence = self.set_timer(SAID_SECONDS, self._fall_silent)
        self.refresh()
        return True

    def render(self) -> Text:
        """Each key is a button, too."""
        if self._message is not None:
            text, style = self._message
            return row(self.size.width, [(" ", ""), (text, style)])
        sign = self.get_component_rich_style("key-line--key", partial=True)
        line = Text(no_wrap=True)
        offered = [k for k in KEYS if k.name in self._commands or k.name not in COMMANDS]
        for key in fitting(offered, self.size.width):
            press = Style(meta={"action": key.action})
            line.append(_sign(key), sign + press).append(f" {key.label} ", press)
        line.right_crop(1)
        return line

    def _fall_silent(self) -> None:
        self._message = None
        self.refresh()

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
