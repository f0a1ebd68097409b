"""Closes the run folder of an engine that died: the log gets the end that it lacks, the report is written.

A replay, an attached screen and a script then find what the screen said, and all that was found.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from functools import reduce
from pathlib import Path

from probe_engine.assembly import empty, fold
from probe_engine.events import AnyEvent, encode
from probe_engine.report import encode as encode_report
from probe_tui.engine_end import EngineEnd
from probe_tui.feeds.tail import Tail


def is_over(run: Path) -> bool:
    """Whether the run's log holds its end."""
    return _read(run)[0].ended


def close(run: Path, end: EngineEnd) -> None:
    """Writes what is missing.

    Raises:
        OSError: the folder can't be written.
    """
    tail, recorded = _read(run)
    missing = [] if tail.ended else end.events(run, seq=tail.seq, at=tail.time)
    if missing:
        with (run / "events.jsonl").open("ab") as log:
            log.truncate(log.tell() - len(tail.unfinished))  # the line in which the engine died
            log.write(b"".join(map(encode, missing)))
    if not (run / "report.json").exists():
        _write_report(run, [*recorded, *missing])


def _read(run: Path) -> tuple[Tail, list[AnyEvent]]:
    tail = Tail(run / "events.jsonl")
    return tail, tail.poll().events


def _write_report(run: Path, said: Iterable[AnyEvent]) -> None:
    partial = run / "report.json.partial"
    partial.write_bytes(encode_report(reduce(fold, said, empty())))
    os.replace(partial, run / "report.json")
