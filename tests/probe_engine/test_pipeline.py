"""How long a stage takes."""

from __future__ import annotations

from collections.abc import Generator

import pytest

from probe_engine import pipeline
from probe_engine.events import AnyEvent, Heartbeat, StageFinished


def test_the_time_in_which_a_run_is_held_is_no_stage_s_own(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0

    def stage() -> Generator[AnyEvent, None, str]:
        nonlocal now
        for _ in range(2):
            now += 1.0
            yield Heartbeat()
        now += 0.5
        return "done"

    results, said = [], []

    def kept() -> Generator[AnyEvent, None, None]:
        results.append((yield from pipeline._Timed()("measure", stage())))

    monkeypatch.setattr(pipeline.time, "monotonic", lambda: now)
    for event in kept():
        said.append(event)
        now += 100.0  # a pause, or a slow reader
    assert results == ["done"]
    assert said[-1] == StageFinished(stage="measure", seconds=2.5)


def test_a_run_that_is_given_up_closes_its_stage() -> None:
    closed = []

    def stage() -> Generator[AnyEvent, None, None]:
        try:
            yield Heartbeat()
        finally:
            closed.append(True)

    timed = pipeline._Timed()("load", stage())
    next(timed)
    next(timed)
    timed.close()
    assert closed == [True]
