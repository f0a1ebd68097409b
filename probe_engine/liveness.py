"""Does a run go on? Judged from outside, by what its log shows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from probe_engine.report import Finding, finding

Status = Literal["running", "silent", "dead", "finished"]

SILENT_SECONDS = 20.0
"""Ten heartbeats. A library that holds the interpreter's lock for long delays them."""
SIGN_OF_LIFE = "a sign of life every 2 s"


def judge(*, over: bool, process: bool, beats: bool, still: float, limit: float) -> Status:
    """What became of a run.

    Args:
        over: its log holds its end.
        process: its process is here and writes to it.
        beats: it gives signs of life (a headless run without a gate does not).
        still: seconds since its log was written to.
        limit: how long is too long.
    """
    if over:
        return "finished"
    if process:
        return "silent" if beats and still > limit else "running"
    # The process is gone, or it is another machine's: there the log alone tells.
    return "running" if still <= limit else "dead"


def silence(
    still: float, limit: float, seen: str, log_end: Sequence[str], *, expected: str = SIGN_OF_LIFE
) -> Finding:
    """RUN002: an engine that should be heard of is not.

    Args:
        still: seconds since it was.
        limit: how long is too long.
        seen: what was seen instead, in words.
        log_end: the last lines of its engine.log.
        expected: what it should have said.
    """
    return finding(
        "RUN002",
        "warn",
        f"expected {expected}, {seen}",
        value=still,
        threshold=limit,
        evidence={"engine.log": list(log_end)},
    )
