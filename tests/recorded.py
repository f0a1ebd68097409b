"""Small event logs for tests that read them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import msgspec

from probe_engine.events import AnyEvent, Failed, Finished, Hello, Progress, StageStarted, encode
from probe_engine.report import Environment, RunInfo, Tool

ENVIRONMENT = Environment(
    python="3", torch="2", transformers="5", peft="0", device="cpu", dtype="float32", threads=1
)
PID = 2**22 + 1
"""Above every process number that Linux gives."""


def hello(pid: int = PID, seed: int = 0) -> Hello:
    """The first event."""
    return Hello(pid=pid, seed=seed, tool=Tool(version="0"), environment=ENVIRONMENT, config={})


def finished() -> Finished:
    """The last event of a run that came through."""
    return Finished(run=RunInfo(status="complete", exit_code=0))


def failed() -> Failed:
    """The last event of a run that was interrupted."""
    return Failed(message="interrupted", remedy="", run=RunInfo(exit_code=130))


def events(*said: AnyEvent, every: float = 1.0) -> list[AnyEvent]:
    """The events as an engine stamps them, `every` seconds one."""
    return [msgspec.structs.replace(e, seq=n + 1, time=n * every) for n, e in enumerate(said)]


def working(count: int, pid: int = PID) -> list[AnyEvent]:
    """A run that has done `count` of 100 tokens so far."""
    progress = (Progress(stage="measure", done=n + 1, total=100) for n in range(count))
    return events(hello(pid), StageStarted(stage="measure"), *progress)


def write(run: Path, said: Iterable[AnyEvent]) -> Path:
    """Appends events to a run's log; returns the log."""
    run.mkdir(exist_ok=True)
    log = run / "events.jsonl"
    with log.open("ab") as file:
        file.write(b"".join(map(encode, said)))
    return log
