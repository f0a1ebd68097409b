"""Log: the engine's own words, and what libraries print, so that nothing is lost."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.text import Text
from textual.app import ComposeResult
from textual.widgets import RichLog

from probe_tui.state import ScreenState
from probe_tui.widgets.panel import Panel

TAIL_BYTES = 200_000
"""Of a log that is longer than this, only the end is shown."""


class LogPanel(Panel):
    """Follows RUN/engine.log."""

    DEFAULT_CSS = "LogPanel RichLog { padding: 0 1; background: $surface; overflow-x: hidden; }"

    def __init__(self) -> None:
        super().__init__()
        self._path: Path | None = None
        self._offset = 0
        self._filter = ""
        self._lines: list[str] = []

    def compose(self) -> ComposeResult:
        """One scrolling text."""
        yield RichLog(wrap=True, min_width=1, markup=False, max_lines=5000)

    def follow(self, path: Path) -> None:
        """Shows this log from now on."""
        self._path, self._offset, self._lines = path, 0, []
        self._draw()

    def show(self, state: ScreenState) -> None:
        """Adds the lines since the last look."""
        del state
        shown = any(self._filter in line.lower() for line in self._lines)
        fresh = self._read()
        self._lines += fresh
        if shown:
            self._write(fresh)
        else:
            self._draw()

    def filter(self, text: str) -> None:
        """Shows the lines that hold the text."""
        self._filter = text.lower()
        self._draw()

    def on_resize(self) -> None:
        """Wraps anew."""
        self._draw()

    def _draw(self) -> None:
        """All of it, or why there is nothing."""
        log = self.query_one(RichLog)
        log.clear()
        if not self._write(self._lines):
            log.write(Text(self._why_empty(), style=self.palette.muted))

    def _write(self, lines: Sequence[str]) -> bool:
        """Appends those that the filter lets through; whether there were any."""
        matching = [line for line in lines if self._filter in line.lower()]
        log = self.query_one(RichLog)
        for line in matching:
            log.write(Text.from_ansi(line))
        return bool(matching)

    def _why_empty(self) -> str:
        if self._lines:
            return f"No line holds “{self._filter}”."
        if self._path is None or not self._path.exists():
            return "No engine log here: what libraries printed went to the terminal of that run."
        return f"Nothing was printed so far to {self._path}."

    def copy_text(self) -> str:
        """The last lines."""
        return "\n".join(self._lines[-50:])

    def _read(self) -> list[str]:
        if self._path is None:
            return []
        try:
            with self._path.open("rb") as log:
                size = log.seek(0, 2)
                start = self._offset or max(0, size - TAIL_BYTES)
                log.seek(start)
                whole, newline, _ = log.read().rpartition(b"\n")
        except OSError:
            return []
        self._offset = start + len(whole) + len(newline)
        text = whole.decode("utf-8", errors="replace")
        # A progress bar rewrites its line with carriage returns: its last state is what counts.
        return [line.rsplit("\r", 1)[-1] for line in text.splitlines()] if text else []
