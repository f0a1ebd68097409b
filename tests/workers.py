"""Workers for tests of the screen's engine: scripts in a real one's place, and what is read of a run.

A real worker imports torch for seconds; a script will do where only the process matters.
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import recorded

from probe_engine.events import AnyEvent, FindingEvent, encode
from probe_engine.report import Report
from probe_engine.spec import resolve
from probe_tui.engine_process import EngineProcess
from probe_tui.feeds import LiveFeed
from probe_tui.state import ScreenState, fold

SHORT_LADDER = ((None, 0.05), (signal.SIGINT, 0.5), (signal.SIGTERM, 0.5), (signal.SIGKILL, 5.0))
Start = Callable[..., EngineProcess]

PRELUDE = """
import os, signal, subprocess, sys, time
run = sys.argv[2]
def say(*names):
    with open(run + "/events.jsonl", "ab") as log:
        for name in names:
            log.write(open(run + "/../" + name, "rb").read())
"""
"""For scripts in a worker's place: `say("hello")` appends an event to the log."""


@contextmanager
def scripted(folder: Path) -> Iterator[Start]:
    """Starts scripts as workers, each in a new run folder; none is left afterwards."""
    for name, event in (("hello", recorded.hello()), ("finished", recorded.finished())):
        (folder / name).write_bytes(encode(event))
    engines: list[EngineProcess] = []

    def start(script: str, **options: object) -> EngineProcess:
        worker = (sys.executable, "-S", "-c", PRELUDE + script)
        run = folder / f"run{len(engines)}"
        options.setdefault("ladder", SHORT_LADDER)
        engines.append(EngineProcess(resolve({}), run, worker=worker, **options))  # type: ignore[arg-type]
        return engines[-1]

    try:
        yield start
    finally:
        for engine in engines:
            engine.stop()


def wait_for(happened: Callable[[], object], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def heard_until(feed: LiveFeed, kind: type[AnyEvent]) -> list[AnyEvent]:
    """The events up to the first of a kind; a run that ends without it fails the test."""
    said: list[AnyEvent] = []

    def looked() -> bool:
        said.extend(feed.poll().events)
        found = any(isinstance(e, kind) for e in said)
        assert found or not feed.ended, said[-2:]
        return found

    wait_for(looked)
    return said


def findings(said: list[AnyEvent]) -> list[str]:
    return [e.finding.code for e in said if isinstance(e, FindingEvent) and e.finding.status != "ok"]


def folded(said: list[AnyEvent]) -> ScreenState:
    state = ScreenState()
    for event in said:
        state = fold(state, event)
    return state


def written_report(run: Path) -> Report:
    return msgspec.json.decode((run / "report.json").read_bytes(), type=Report)


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False
