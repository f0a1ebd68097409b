"""A program in a terminal that nobody looks at: keys go in, frames come out with the time they came at."""

from __future__ import annotations

import fcntl
import os
import re
import signal
import struct
import subprocess
import termios
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Self

BEGIN, END = b"\x1b[?2026h", b"\x1b[?2026l"
"""Around each frame, where the terminal says that it knows them."""
QUESTION, ANSWER = b"\x1b[?2026$p", b"\x1b[?2026;2$y"
ESCAPES = re.compile(r"\x1b(?:\[[0-9;:<>?$]*[A-Za-z]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[=>])")
PLACED = re.compile(r"\x1b\[(\d+);(\d+)H")


@dataclass(frozen=True)
class Frame:
    """What one repaint wrote."""

    at: float
    """When its last byte came, time.monotonic()."""
    raw: str

    @property
    def text(self) -> str:
        """The letters alone."""
        return ESCAPES.sub("", self.raw)

    def touches(self, rows: range, columns: range) -> bool:
        """Whether it wrote into this part of the screen; the first row and column are 1."""
        parts = PLACED.split(self.raw)[1:]
        for row, column, written in zip(parts[::3], parts[1::3], parts[2::3], strict=True):
            end = int(column) + len(ESCAPES.sub("", written))
            if int(row) in rows and int(column) < columns.stop and end > columns.start:
                return True
        return False


Answer = Callable[[Frame], bool]


class Terminal:
    """Runs a command on a pty of its own; a thread reads what it draws.

    Args:
        command: what to run.
        environ: its environment.
        size: columns and rows.
    """

    def __init__(
        self, command: Sequence[str], environ: dict[str, str], *, size: tuple[int, int] = (120, 40)
    ) -> None:
        self._ours, theirs = os.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", size[1], size[0], 0, 0))
        self.frames: list[Frame] = []
        self._changed = threading.Condition()
        self._over = False
        self.began = time.monotonic()
        self.process = subprocess.Popen(
            command, stdin=theirs, stdout=theirs, stderr=theirs, env=environ, start_new_session=True
        )
        os.close(theirs)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def send(self, keys: str) -> float:
        """Types; returns when."""
        at = time.monotonic()
        os.write(self._ours, keys.encode())
        return at

    def wait(self, answer: Answer, *, since: float = 0.0, seconds: float = 10.0) -> Frame:
        """The first frame after `since` that is an answer.

        Raises:
            TimeoutError: none came in time, or the program ended.
        """
        deadline = time.monotonic() + seconds
        seen = 0
        with self._changed:
            while True:
                for frame in self.frames[seen:]:
                    if frame.at > since and answer(frame):
                        return frame
                seen = len(self.frames)
                if self._over or not self._changed.wait(deadline - time.monotonic()):
                    last = self.frames[-1].text[-500:] if self.frames else "nothing at all"
                    raise TimeoutError(f"no such frame within {seconds:g} s; the last one: {last!r}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Ends the program, where it still runs."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self._reader.join()
        os.close(self._ours)

    def _read(self) -> None:
        pending = b""
        framed = False
        while True:
            try:
                chunk = os.read(self._ours, 1 << 16)
            except OSError:  # EIO: the program has let go of its side
                with self._changed:
                    self._over = True
                    self._changed.notify_all()
                return
            at = time.monotonic()
            if QUESTION in chunk:
                os.write(self._ours, ANSWER)
            framed = framed or BEGIN in chunk
            *whole, pending = (pending + chunk).split(END) if framed else (pending + chunk, b"")
            with self._changed:
                self.frames += [Frame(at, frame.decode(errors="replace")) for frame in whole]
                self._changed.notify_all()
