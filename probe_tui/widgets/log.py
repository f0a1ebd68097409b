"""Log: the engine's own words, and what libraries print, so that nothing is lost."""

from __future__ import annotations

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

    DEFAULT_CSS = "LogPanel RichLog { padding: 0 1; background: $surface; }"

    def __init__(self) -> None:
        super().__init__()
        self._path: Path | None = None
        self._offset = 0
        self._filter = ""
        self._lines: list[str] = []
        self._said_why = False

    def compose(self) -> ComposeResult:
        """One scrolling text."""
        yield RichLog(wrap=True, markup=False, max_lines=5000)

    def follow(self, path: Path) -> None:
        """Shows this log from now on."""
        self._path, self._offset, self._lines, self._said_why = path, 0, [], False
        self.query_one(RichLog).clear()

    def show(self, state: ScreenState) -> None:
        """Adds the lines since the last look."""
        log = self.query_one(RichLog)
        fresh = self._read()
        self._lines += fresh
        for line in fresh:
            if self._filter in line.lower():
                log.write(Text.from_ansi(line))
        if self._lines and self._said_why:
            log.clear()
            self._said_why = False
            self.filter(self._filter)
        elif not self._lines and not self._said_why:
            self._said_why = True
            log.write(Text(self._why_empty()))
        del state

    def _why_empty(self) -> str:
        if self._path is None or not self._path.exists():
            return "No engine log here: what libraries printed went to the terminal of that run."
        return f"Nothing was printed so far to {self._path}."

    def filter(self, text: str) -> None:
        """Shows the lines that hold the text."""
        self._filter = text.lower()
        log = self.query_one(RichLog)
        log.clear()
        for line in self._lines:
            if self._filter in line.lower():
                log.write(Text.from_ansi(line))

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
