"""A terminal for programs under test: a pty that is read all the time, and what it was told to show."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Self

SEQUENCES = re.compile(
    rb"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[PX^_].*?\x1b\\|[@-Z\\-_=>])", re.S
)

ENTERED, LEFT = b"\x1b[?1049h", b"\x1b[?1049l"
"""The alternate screen."""
HIDDEN, SHOWN = b"\x1b[?25l", b"\x1b[?25h"
"""The cursor."""
MODES = {b"1000": "mouse clicks", b"1003": "mouse moves", b"1006": "mouse", b"2004": "bracketed paste"}
"""Private modes that a program must take back, each set by CSI ? n h and reset by CSI ? n l."""

TAKE_TERMINAL = """
import fcntl, os, resource, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
if limit := int(sys.argv[1]):
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
os.execvp(sys.argv[2], sys.argv[2:])
"""
"""Makes the terminal the session's: Ctrl-C and hanging up then reach it as signals."""


class Terminal:
    """Runs a program in a terminal of its own, as its session's leader.

    Args:
        command: the program.
        environment: its whole environment.
        size: columns, rows.
        memory: the most address space for each of its processes, bytes.
    """

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        *,
        size: tuple[int, int] = (120, 40),
        memory: int | None = None,
    ) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", size[1], size[0], 0, 0))
        self._before = termios.tcgetattr(slave)
        self._slave: int | None = slave
        self.output = b""
        self.process = subprocess.Popen(
            [sys.executable, "-S", "-c", TAKE_TERMINAL, str(memory or 0), *command],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            # The size is this terminal's, whatever the one around the tests says of its own.
            env={k: v for k, v in environment.items() if k not in ("COLUMNS", "LINES")},
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.kill()
        self.process.wait()
        self.hang_up()

    @property
    def text(self) -> str:
        """All that was written so far, without control sequences."""
        return SEQUENCES.sub(b"", self.output).decode("utf-8", "replace")

    def press(self, keys: str) -> None:
        """Types."""
        os.write(self._master, keys.encode())

    def hang_up(self) -> None:
        """Closes the terminal's window."""
        master, self._master = self._master, -1
        if self._slave is not None:
            os.close(self._slave)
            self._slave = None
        if master >= 0:
            os.close(master)

    def wait_for(self, happened: Callable[[], object] | str, seconds: float = 30.0) -> None:
        """Waits until something is true or a text was written.

        Raises:
            AssertionError: it does not come; says what the terminal holds.
        """
        looks = (lambda: happened in self.text) if isinstance(happened, str) else happened
        deadline = time.monotonic() + seconds
        while not looks():
            if time.monotonic() > deadline:
                wanted = happened if isinstance(happened, str) else "a condition"
                raise AssertionError(
                    f"waited in vain for {wanted!r}; last on the terminal:\n{self.text[-3000:]}"
                )
            time.sleep(0.02)

    def exit_code(self, seconds: float = 30.0) -> int:
        """Waits for the program's end."""
        return self.process.wait(seconds)

    def unrestored(self) -> list[str]:
        """What a program that has ended left changed."""
        left = []
        if self.output.rfind(ENTERED) > self.output.rfind(LEFT):
            left.append("the alternate screen")
        if self.output.rfind(HIDDEN) > self.output.rfind(SHOWN):
            left.append("a hidden cursor")
        for mode, name in MODES.items():
            if self.output.rfind(b"\x1b[?" + mode + b"h") > self.output.rfind(b"\x1b[?" + mode + b"l"):
                left.append(name)
        if self._slave is not None and termios.tcgetattr(self._slave) != self._before:
            left.append("the line discipline")
        return left

    def _read(self) -> None:
        master = self._master
        while True:
            try:
                read = os.read(master, 65536)
            except OSError:  # hung up
                return
            if not read:
                return
            self.output += read
