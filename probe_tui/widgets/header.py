"""The top line: what is probed, and whether it is live."""

from __future__ import annotations

from pathlib import Path

from rich.cells import cell_len
from rich.text import Text
from textual.widget import Widget

from probe_tui.state import ScreenState


class Header(Widget):
    """One line: program, checkpoint, model, optimizer; badge and clock on the right."""

    DEFAULT_CSS = "Header { height: 1; background: $panel; color: $foreground; }"

    def __init__(self) -> None:
        super().__init__()
        self._left: tuple[str, ...] = ("probe-tui",)
        self._right = ""

    def show(self, state: ScreenState, badge: str, seconds: float) -> None:
        """Draws what is known so far; repaints only when a word changes."""
        left = ("probe-tui", *_subject(state))
        right = f"{badge}  {int(seconds) // 60:02d}:{int(seconds) % 60:02d}"
        if (left, right) != (self._left, self._right):
            self._left, self._right = left, right
            self.refresh()

    def render(self) -> Text:
        """The left part gives way to the right one where both don't fit: the plainest words go first."""
        room = self.size.width - cell_len(self._right) - 4
        name, *about = self._left
        spellings = [[name, *about], about or [name], [*about[:1], *about[2:]] or [name], about[:1] or [name]]
        fitting = (said for words in spellings if cell_len(said := " · ".join(words)) < room)
        line = Text(f" {next(fitting, ' · '.join(spellings[-1]))}", no_wrap=True)
        line.truncate(max(room, 0), overflow="ellipsis", pad=True)
        line.append(f"  {self._right} ")
        return line


def _subject(state: ScreenState) -> list[str]:
    """Checkpoint, kind and optimizer."""
    info = state.report.checkpoint
    named = state.report.config.get("checkpoint")
    if info is None:
        return [Path(str(named.value)).name] if named is not None and named.value else []
    base = f"{Path(info.base).name} + adapter" if info.base else info.kind
    optimizer = info.optimizer
    lr = "lr unknown" if optimizer.lr is None else f"lr {optimizer.lr:.3g}"
    return [Path(info.path).name, base, f"{optimizer.class_ or 'no optimizer state,'} {lr}"]
