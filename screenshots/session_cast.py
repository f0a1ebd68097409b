"""Records a session: the real screen under a pseudo-terminal, driven by a script of keys."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import select
import struct
import subprocess
import termios
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

COLUMNS, ROWS = 120, 40
SCRIPT = (
    (5.0, ""),  # it loads and waits
    (2.0, "n"),  # rollouts
    (2.0, "n"),  # flow
    (2.5, "2"),  # units, still empty: the reason stands there
    (12.0, "a"),  # run all: the histograms grow
    (2.5, "3"),
    (2.5, "4"),
    (3.5, "5"),
    (3.0, "?"),
    (0.5, "\x1b"),
    (1.5, "\x11"),  # ctrl+q
    (1.5, "s"),  # on a slow machine it is still at work, and asks: stop it
)
"""Keys, and the seconds of patience after each."""


def record(cast: Path, command: Sequence[str], environment: Mapping[str, str]) -> None:
    """Writes an asciicast v2 file of the command, driven by SCRIPT."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    quiet = {name: value for name, value in environment.items() if name not in ("CI", "NO_COLOR")}
    process = subprocess.Popen(
        list(command),
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env={**quiet, "TERM": "xterm-256color", "COLORTERM": "truecolor"},
        start_new_session=True,
    )
    os.close(slave)
    began = time.monotonic()
    header = {"version": 2, "width": COLUMNS, "height": ROWS, "title": "probe-tui --demo"}
    lines = [json.dumps(header)]
    for patience, keys in SCRIPT:
        if keys and process.poll() is None:
            os.write(master, keys.encode())
        deadline = time.monotonic() + patience
        while (left := deadline - time.monotonic()) > 0 and process.poll() is None:
            if select.select([master], [], [], left)[0]:
                try:
                    data = os.read(master, 65536)
                except OSError:  # the terminal is gone with its last program
                    break
                at = round(time.monotonic() - began, 3)
                lines.append(json.dumps([at, "o", data.decode("utf-8", "replace")]))
    process.wait(timeout=20)
    os.close(master)
    cast.write_text("\n".join(lines) + "\n")
