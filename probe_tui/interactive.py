"""Runs with a screen: `probe-tui CHECKPOINT`, `--attach`, `--replay`."""

from __future__ import annotations

import os
import select
import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from probe_engine.errors import ProbeError, UsageError
from probe_engine.spec import Resolved

if TYPE_CHECKING:
    from probe_tui.session import Session


def in_terminal() -> bool:
    """Whether there is a terminal to draw on: Textual reads stdin and draws on stderr."""
    if os.environ.get("CI") or os.environ.get("TERM", "") in ("", "dumb"):
        return False
    return all(_is_terminal(descriptor) for descriptor in (0, 1, 2))


def drive(resolved: Resolved) -> int:
    """The screen with an engine of its own; returns the exit code."""
    from probe_tui.session import LiveSession

    return _show(LiveSession(resolved))


def watch(attach: str | None, replay: str | None) -> int:
    """The screen on a run that another process works on, or on a recording."""
    from probe_tui.session import AttachedSession, ReplaySession

    if not in_terminal():
        raise UsageError(
            "--attach and --replay need a terminal, this is none",
            "events.jsonl and report.json in the run folder hold everything",
        )
    if attach is not None:
        return _show(AttachedSession(_run_folder(attach)))
    return _show(ReplaySession(_run_folder(replay or "")))


def _show(session: Session) -> int:
    # A frame waits for the next tick of Textual's clock: at its 60 a second, up to 17 ms after a key.
    os.environ.setdefault("TEXTUAL_FPS", "120")
    from probe_tui.app import ProbeApp

    # In a thread: the main one may be blocked in a write to a terminal that is gone.
    signal.signal(signal.SIGHUP, lambda *_: threading.Thread(target=_hung_up, args=(session,)).start())
    threading.Thread(target=_watch_terminal, args=(session,), daemon=True).start()
    try:
        return ProbeApp(session).run() or 0
    finally:
        session.close()  # however the screen ended


def _watch_terminal(session: Session) -> None:
    """A terminal that does not control this process can go without a SIGHUP, and reading it never ends."""
    hung_up = select.poll()
    hung_up.register(0, 0)  # what is reported without asking: hang-up, error, no such descriptor
    if any(events & select.POLLHUP for _, events in hung_up.poll()):
        _hung_up(session)


def _hung_up(session: Session) -> None:
    """The terminal was closed: there is nothing to restore, and nobody to ask."""
    session.close()
    os._exit(128 + signal.SIGHUP)


def _run_folder(path: str) -> Path:
    folder = Path(path).absolute()
    if not (folder / "events.jsonl").is_file():
        raise ProbeError(
            f"{path}: expected a run folder with events.jsonl, found none",
            "Give the folder that --out named, or the one that the screen showed.",
        )
    return folder


def _is_terminal(descriptor: int) -> bool:
    try:
        return os.isatty(descriptor)
    except OSError:
        return False
