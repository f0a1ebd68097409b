"""fold: what the screen knows after each event, of recordings and of runs as no recording has them."""

from __future__ import annotations

from functools import reduce
from pathlib import Path

import finished_states
import pytest
import recorded
from hypothesis import given
from hypothesis import strategies as st
from pictures import RECORDINGS

from probe_engine import assembly
from probe_engine.events import (
    AnyEvent,
    Contributions,
    EstimateEvent,
    Failed,
    FindingEvent,
    Finished,
    Heartbeat,
    Paused,
    Progress,
    StageFinished,
    StageStarted,
    encode,
)
from probe_engine.report import Estimates
from probe_engine.sources.run_folder import read_events
from probe_tui.feeds import Tail
from probe_tui.state import STAGES, ScreenState, fold

NAMES = sorted(path.parent.name for path in RECORDINGS.glob("*/events.jsonl"))
EVENTS = {name: list(read_events(RECORDINGS / name)) for name in NAMES}


def folded(said: list[AnyEvent], state: ScreenState | None = None) -> ScreenState:
    return reduce(fold, said, state or ScreenState())


def statuses(state: ScreenState) -> list[str]:
    return [s.status for s in state.stages]


# Recordings


@pytest.mark.parametrize("name", NAMES)
def test_every_beginning_of_a_run_is_a_state_with_the_engine_s_own_report(name: str) -> None:
    state, report = ScreenState(), assembly.empty()
    for number, event in enumerate(EVENTS[name], 1):
        before = state.time
        state, report = fold(state, event), assembly.fold(report, event)
        assert state.report == report
        assert state.events == number
        assert state.time >= before
        assert [s.name for s in state.stages] == list(STAGES)
        assert statuses(state).count("running") <= 1


@given(st.sampled_from(NAMES), st.data())
def test_lost_events_are_missed_and_nothing_else(name: str, data: st.DataObject) -> None:
    kept = data.draw(st.lists(st.booleans(), min_size=len(EVENTS[name]), max_size=len(EVENTS[name])))
    heard = [event for event, keep in zip(EVENTS[name], kept, strict=True) if keep]
    state = folded(heard)
    assert state.report == reduce(assembly.fold, heard, assembly.empty())
    assert state.events == len(heard)


@pytest.mark.parametrize("name", NAMES)
def test_unknown_kinds_and_a_cut_last_line_change_nothing(name: str, tmp_path: Path) -> None:
    unknown = b'{"kind":"weather","seq":0,"time":9e9,"v":7,"sky":{"blue":[1,2]}}\n'
    lines = [encode(event) for event in EVENTS[name]]
    log = tmp_path / "events.jsonl"
    log.write_bytes(unknown + unknown.join(lines)[:-20])
    assert folded(Tail(log).poll().events) == folded(EVENTS[name][:-1])


def test_a_run_that_came_through_has_every_stage_done_and_nothing_provisional() -> None:
    state = folded(EVENTS["healthy"])
    assert set(statuses(state)) == {"done"}
    assert {s.name: s.seconds for s in state.stages} == state.report.timings
    assert isinstance(state.ended, Finished)
    assert (state.running, state.paused, state.provisional) == (None, None, None)
    assert state.pid is not None


def test_a_run_that_was_stopped_has_its_stage_stopped_and_the_later_ones_waiting() -> None:
    state = folded(EVENTS["frozen-adapter"])
    assert statuses(state) == ["done", "done", "stopped", *["waiting"] * 4]
    assert isinstance(state.ended, Failed)
    assert state.running is None
    assert (state.stage("flow").worst, state.stage("rollouts").worst) == ("fail", "ok")


def test_contributions_are_provisional_until_they_are_final() -> None:
    said = EVENTS["healthy"]
    first = next(n for n, event in enumerate(said) if isinstance(event, Contributions))
    final = next(n for n, event in enumerate(said) if isinstance(event, EstimateEvent))
    assert folded(said[:first]).provisional is None
    assert folded(said[: first + 1]).provisional == said[first]
    last = [event for event in said[:final] if isinstance(event, Contributions)][-1]
    assert folded(said[:final]).provisional == last
    assert folded(said[: final + 1]).provisional is None
    rows = folded(said).report.units
    assert [row.contribution_r for row in rows if row.id in last.ids] != [None] * len(last.ids)


def test_an_estimate_without_a_value_leaves_them_provisional() -> None:
    """Without a learning rate there is no δH₁: what was drawn so far is all that there will be."""
    so_far = Contributions(ids=["p0"], s=[None], r=[0.5])
    assert folded([so_far, EstimateEvent(estimates=Estimates())]).provisional == so_far


# Time


def test_rate_and_time_left_are_those_of_the_stage() -> None:
    begun = folded([StageStarted(stage="measure", time=10)])
    assert (begun.running, begun.stage("measure").rate, begun.stage("measure").left) == (
        begun.stage("measure"),
        None,
        None,
    )
    measure = folded([Progress(stage="measure", done=30, total=120, time=16)], begun).stage("measure")
    assert (measure.seconds, measure.rate, measure.left) == (6, 5, 18)
    assert (measure.done, measure.total, measure.unit) == (30, 120, "tokens")


def test_a_stage_that_took_no_time_has_no_rate() -> None:
    said = [StageStarted(stage="load", time=3), Progress(stage="load", done=1, total=2, time=3)]
    assert folded(said).stage("load").left is None


def test_the_engine_s_own_measure_of_a_stage_wins() -> None:
    said = [
        StageStarted(stage="load", time=1),
        Progress(stage="load", done=1, total=1, time=9),
        StageFinished(stage="load", seconds=7.5, time=9.5),
    ]
    load = folded(said).stage("load")
    assert (load.status, load.seconds) == ("done", 7.5)


def test_a_pause_in_its_middle_is_not_a_stage_s_own_time() -> None:
    said = [
        StageStarted(stage="measure", time=10),
        Progress(stage="measure", done=10, total=40, time=12),
        Paused(stage="", reason="pause", time=12),
        Heartbeat(time=500),
        Paused(stage="", reason="breakpoint: OPT010", time=600),
        Progress(stage="measure", done=30, total=40, time=1014),
        Progress(stage="measure", done=30, total=40, time=1016),
    ]
    measure = folded(said).stage("measure")
    assert (measure.seconds, measure.rate, measure.left) == (4, 7.5, pytest.approx(4 / 3))


def test_a_stage_begins_when_it_is_let_go() -> None:
    said = [
        StageStarted(stage="measure", time=10),
        Paused(stage="measure", reason="step", time=10),
        Heartbeat(time=500),
        Progress(stage="measure", done=10, total=40, time=1010),
    ]
    held = folded(said)
    assert held.stage("measure").rate is None
    measure = folded([Progress(stage="measure", done=20, total=40, time=1012)], held).stage("measure")
    assert (measure.seconds, measure.rate, measure.left) == (2, 10, 2)


def test_time_never_goes_back() -> None:
    assert folded([Heartbeat(time=5), Heartbeat(time=4)]).time == 5


# Waiting and ending


def test_a_heartbeat_leaves_the_pause_and_anything_else_ends_it() -> None:
    held = folded([StageStarted(stage="load"), Paused(stage="load", reason="step")])
    assert held.paused == Paused(stage="load", reason="step")
    assert fold(held, Heartbeat()).paused == held.paused
    assert fold(held, Progress(stage="load", done=1, total=2)).paused is None
    again = fold(held, Paused(stage="", reason="breakpoint: OPT001"))
    assert again.paused is not None
    assert again.paused.reason == "breakpoint: OPT001"


def test_a_run_that_is_stopped_while_it_waits_is_over() -> None:
    ended = folded([StageStarted(stage="flow"), Paused(stage="flow", reason="step"), recorded.failed()])
    assert ended.paused is None
    assert ended.stage("flow").status == "stopped"


def test_the_worst_finding_marks_the_stage_that_found_it() -> None:
    found = [
        FindingEvent(finding=finished_states.found(code, status))
        for code, status in (("OPT001", "skip"), ("OPT004", "warn"), ("OPT003", "fail"), ("OPT005", "info"))
    ]
    state = folded([StageStarted(stage="load"), *found, StageFinished(stage="load", seconds=1)])
    assert state.stage("load").worst == "fail"
    after = fold(state, found[2])
    assert [s.worst for s in after.stages[1:]] == ["ok"] * (len(STAGES) - 1)
    assert [f.code for f in after.report.findings] == ["OPT001", "OPT004", "OPT003", "OPT005", "OPT003"]


def test_a_stage_of_a_newer_engine_is_shown_after_those_that_are_known() -> None:
    state = folded([StageStarted(stage="sweep", time=1), Progress(stage="sweep", done=1, total=4, time=2)])
    assert [s.name for s in state.stages] == [*STAGES, "sweep"]
    assert state.running is not None
    assert (state.running.name, state.running.left) == ("sweep", 3)
