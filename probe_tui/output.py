"""Standard output and error, whatever stands behind them: a reader that leaves, a full disk, nothing."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, AnyStr

from probe_engine.errors import INTERRUPTED, ProbeError


def write(stream: IO[AnyStr], text: AnyStr) -> None:
    """Writes and flushes.

    Raises:
        ProbeError: the reader has left (`| head`), or there is no room (RUN003).
    """
    try:
        stream.write(text)
        stream.flush()
    except BrokenPipeError as error:
        raise ProbeError("the reader of the output has left", exit_code=INTERRUPTED) from error
    except OSError as error:
        raise ProbeError(
            f"the output can't be written: {error.strerror}",
            "Send it to a place that has room.",
            code="RUN003",
            commands=("probe-tui CHECKPOINT --json > report.json",),
        ) from error


def say(text: str) -> None:
    """A page on standard output."""
    write(sys.stdout, text + "\n")


def prepare() -> None:
    """Gives the streams that were closed a place to go, and lets no symbol break a terminal's encoding."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 - open as long as the process
        getattr(sys, name).reconfigure(errors="replace")


@contextmanager
def kept_for_data() -> Iterator[None]:
    """Sends to standard error what anybody else prints: a library, a model, a reward function."""
    sys.stdout.flush()
    out = sys.stdout.fileno()
    saved = os.dup(out)
    os.dup2(sys.stderr.fileno(), out)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(saved, out)
        os.close(saved)


def let_go() -> None:
    """Drops what could not be written: Python would flush it once more at exit, and complain."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
