"""Where events come from: logs written in every way, runs of others, recordings."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import recorded

from probe_engine.errors import ProbeError
from probe_engine.events import (
    AnyEvent,
    Failed,
    FindingEvent,
    Finished,
    Heartbeat,
    Hello,
    Paused,
    Progress,
    StageStarted,
    encode,
)
from probe_engine.liveness import judge
from probe_tui.feeds import AttachFeed, Feed, ReplayFeed, Tail
from probe_tui.feeds.attach import writes
from probe_tui.feeds.replay import timeline
from probe_tui.state import ScreenState, fold


def kinds(said: list[AnyEvent]) -> list[str]:
    return [type(e).__name__ for e in said]


def codes(said: list[AnyEvent]) -> list[tuple[str, str]]:
    return [(e.finding.code, e.finding.status) for e in said if isinstance(e, FindingEvent)]


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


# A log that grows


def test_a_tail_gives_each_event_once_as_it_is_written(tmp_path: Path) -> None:
    tail = Tail(tmp_path / "events.jsonl")
    assert tail.poll().events == []
    said = recorded.working(3)
    recorded.write(tmp_path, said[:2])
    assert tail.poll().events == said[:2]
    assert tail.poll().events == []
    recorded.write(tmp_path, said[2:])
    assert tail.poll().events == said[2:]
    assert (tail.seq, tail.time, tail.ended) == (5, 4.0, False)


def test_half_a_line_waits_for_its_other_half(tmp_path: Path) -> None:
    said = recorded.working(1)
    log = recorded.write(tmp_path, said)
    whole = log.read_bytes()
    log.write_bytes(whole[:-30])
    tail = Tail(log)
    assert tail.poll().events == said[:-1]
    assert tail.unfinished
    assert tail.poll().events == []
    with log.open("ab") as rest:
        rest.write(whole[-30:])
    assert tail.poll().events == said[-1:]
    assert not tail.unfinished


def test_unknown_kinds_are_skipped_and_lines_that_are_no_events_counted(tmp_path: Path) -> None:
    said = recorded.working(2)
    log = recorded.write(tmp_path, said[:2])
    with log.open("ab") as more:
        more.write(
            b'{"kind":"from the future"}\nnonsense\n\xff\xfe\n{"kind":"progress"}\n' + b"[" * 9999 + b"\n"
        )
    recorded.write(tmp_path, said[2:])
    heard = Tail(log).poll().events
    assert heard[:-1] == said
    assert codes(heard) == [("RUN003", "warn")]
    assert isinstance(heard[-1], FindingEvent)
    assert heard[-1].finding.message.endswith("passed over: 4, 5, 6, 7")


@pytest.mark.parametrize("lost", [0, 40], ids=["between lines", "in a line"])
def test_a_log_that_is_cut_keeps_what_was_said_and_goes_on(tmp_path: Path, lost: int) -> None:
    said = recorded.working(4)
    log = recorded.write(tmp_path, said[:2])
    kept = log.stat().st_size
    recorded.write(tmp_path, said[2:4])
    tail = Tail(log)
    tail.poll()
    before = log.stat().st_size
    os.truncate(log, kept - lost)
    heard = tail.poll()
    assert not heard.restart
    assert codes(heard.events) == [("RUN003", "warn")]
    assert "became shorter" in heard.events[0].finding.message  # type: ignore[union-attr]
    # The engine goes on where it was, behind a hole of zeros: they are part of its next line.
    with log.open("r+b") as engine:
        engine.seek(before)
        engine.write(b"".join(map(encode, said[4:])))
    goes_on = said[5:] if lost else said[4:]
    assert [e for e in tail.poll().events if not isinstance(e, FindingEvent)] == goes_on


def test_a_copy_that_is_replaced_as_it_grows_is_followed_without_a_word(tmp_path: Path) -> None:
    said = recorded.working(6)
    log = recorded.write(tmp_path, said[:3])
    tail = Tail(log)
    tail.poll()
    newer = recorded.write(tmp_path / "copy", said)
    os.replace(newer, log)
    heard = tail.poll()
    assert (heard.events, heard.restart) == (said[3:], False)


def test_another_run_s_log_in_its_place_begins_anew(tmp_path: Path) -> None:
    log = recorded.write(tmp_path, recorded.working(9))
    tail = Tail(log)
    tail.poll()
    other = recorded.working(2, pid=recorded.PID + 1)
    os.replace(recorded.write(tmp_path / "other", other), log)
    heard = tail.poll()
    assert heard.restart
    assert [e for e in heard.events if not isinstance(e, FindingEvent)] == other


# A run of somebody else


@pytest.mark.parametrize(
    ("over", "process", "beats", "still", "status"),
    [
        (True, False, True, 999, "finished"),
        (False, True, True, 1, "running"),
        (False, True, True, 21, "silent"),
        (False, True, False, 9999, "running"),  # headless: no heartbeat, the process alone tells
        (False, False, True, 1, "running"),  # another machine's, perhaps
        (False, False, True, 21, "dead"),
        (False, False, False, 21, "dead"),
    ],
)
def test_what_became_of_a_run(over: bool, process: bool, beats: bool, still: float, status: str) -> None:
    assert judge(over=over, process=process, beats=beats, still=still, limit=20) == status


def attached(run: Path, *, still: float, process: bool = False) -> AttachFeed:
    """A feed that looks `still` seconds after the log was written last."""
    feed = AttachFeed(
        run, now=lambda: (run / "events.jsonl").stat().st_mtime + still, is_writer=lambda *_: process
    )
    as_protocol: Feed = feed
    assert as_protocol.badge == "attached"
    return feed


def test_attached_to_a_finished_run(tmp_path: Path) -> None:
    said = recorded.events(recorded.hello(), recorded.finished())
    recorded.write(tmp_path, said)
    feed = attached(tmp_path, still=1e6)
    assert feed.poll().events == said
    assert (feed.status, feed.ended) == ("finished", True)


def test_attached_to_a_running_one_follows_it_to_its_end(tmp_path: Path) -> None:
    said = recorded.events(recorded.hello(), Heartbeat(), recorded.failed())
    recorded.write(tmp_path, said[:2])
    feed = attached(tmp_path, still=1, process=True)
    feed.poll()
    assert (feed.status, feed.ended) == ("running", False)
    recorded.write(tmp_path, said[2:])
    assert feed.poll().events == said[2:]
    assert feed.ended


def test_attached_to_a_dead_one_says_so_once_and_stops_its_stage(tmp_path: Path) -> None:
    log = recorded.write(tmp_path, recorded.working(2))
    with log.open("ab") as cut:
        cut.write(b'{"kind":"prog')
    (tmp_path / "engine.log").write_text("Loading\rLoaded\n\x1b[31mSegmentation fault\x1b[0m\n\n")
    feed = attached(tmp_path, still=60)
    heard = feed.poll().events
    assert kinds(heard[-2:]) == ["FindingEvent", "Failed"]
    assert codes(heard) == [("RUN001", "crash")]
    assert isinstance(heard[-1], Failed)
    assert "its last line is cut" in heard[-1].message
    assert isinstance(heard[-2], FindingEvent)
    assert heard[-2].finding.evidence["engine.log"] == ["Loaded", "Segmentation fault"]
    assert (feed.status, feed.ended) == ("dead", True)
    assert feed.poll().events == []
    state = ScreenState()
    for event in heard:
        state = fold(state, event)
    assert state.stage("measure").status == "stopped"
    assert state.report.run.exit_code == 4


def test_a_run_that_was_given_up_too_soon_comes_back_without_its_death(tmp_path: Path) -> None:
    said = recorded.working(3)
    recorded.write(tmp_path, said[:3])
    still = 60.0
    feed = AttachFeed(
        tmp_path, now=lambda: (tmp_path / "events.jsonl").stat().st_mtime + still, is_writer=lambda *_: False
    )
    assert codes(feed.poll().events) == [("RUN001", "crash")]
    still = 1.0
    recorded.write(tmp_path, said[3:])
    again = feed.poll()
    assert (again.events, again.restart, feed.status) == (said, True, "running")


def test_attached_to_a_silent_one_warns_once_a_silence(tmp_path: Path) -> None:
    said = recorded.events(recorded.hello(), Heartbeat(), Heartbeat(), Heartbeat())
    recorded.write(tmp_path, said[:2])
    still = 60.0
    feed = AttachFeed(
        tmp_path, now=lambda: (tmp_path / "events.jsonl").stat().st_mtime + still, is_writer=lambda *_: True
    )
    assert codes(feed.poll().events) == [("RUN002", "warn")]
    assert feed.poll().events == []
    assert (feed.status, feed.ended) == ("silent", False)
    still = 1.0
    recorded.write(tmp_path, said[2:])
    assert feed.poll().events == said[2:]
    assert feed.status == "running"


@pytest.fixture
def sleeper(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that has a log open."""
    code = "import sys, time; f = open(sys.argv[1], 'xb'); print(flush=True); time.sleep(60)"
    with subprocess.Popen(
        [sys.executable, "-S", "-c", code, str(tmp_path / "events.jsonl")], stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
        process.kill()


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="tells no open files")
def test_a_process_counts_only_where_it_has_the_log_open_and_lives(
    tmp_path: Path, sleeper: subprocess.Popen[bytes]
) -> None:
    log = tmp_path / "events.jsonl"
    assert writes(sleeper.pid, log)
    assert not writes(os.getpid(), log)
    assert not writes(recorded.PID, log)
    sleeper.kill()
    os.waitid(os.P_PID, sleeper.pid, os.WEXITED | os.WNOWAIT)  # a zombie now
    assert not writes(sleeper.pid, log)


# A recording


def replay(run: Path, said: list[AnyEvent], **options: float) -> tuple[ReplayFeed, Clock]:
    recorded.write(run, said)
    clock = Clock()
    return ReplayFeed(run, clock=clock, **options), clock


@pytest.fixture
def said() -> list[AnyEvent]:
    """Eleven events, one a second."""
    progress = (Progress(stage="measure", done=n, total=8) for n in range(8))
    return recorded.events(recorded.hello(), StageStarted(stage="measure"), *progress, recorded.finished())


def test_it_plays_at_the_recorded_pace(tmp_path: Path, said: list[AnyEvent]) -> None:
    feed, clock = replay(tmp_path, said)
    assert (feed.badge, feed.duration) == ("replay", 10.0)
    assert feed.poll().events == said[:1]
    clock.now = 3.5
    assert feed.poll().events == said[1:4]
    assert feed.fraction == 0.35
    clock.now = 99
    assert feed.poll().events == said[4:]
    assert (feed.ended, feed.playing, feed.position) == (True, False, 10.0)


def test_speed_counts_from_where_it_is_and_has_bounds(tmp_path: Path, said: list[AnyEvent]) -> None:
    feed, clock = replay(tmp_path, said, speed=2.0)
    clock.now = 1
    assert len(feed.poll().events) == 3
    feed.set_speed(0.01)
    assert feed.speed == 0.25
    clock.now = 5
    assert feed.position == 3.0
    feed.set_speed(1e9)
    assert feed.speed == 64.0
    clock.now = 5.125
    assert len(feed.poll().events) == 8


def test_pause_stands_still_and_step_is_one_event(tmp_path: Path) -> None:
    same_moment = recorded.events(recorded.hello(), *[Heartbeat()] * 3, recorded.finished(), every=0.0)
    feed, clock = replay(tmp_path, same_moment)
    feed.pause()
    clock.now = 50
    assert feed.poll().events == []
    for event in same_moment[:2]:
        feed.step()
        assert feed.poll().events == [event]
    assert not feed.ended
    feed.play()
    assert feed.poll().events == same_moment[2:]
    feed.step()
    assert feed.poll().events == []


def test_next_stage_goes_to_where_it_begins_and_at_last_to_the_end(tmp_path: Path) -> None:
    stages = [StageStarted(stage="load"), Heartbeat(), StageStarted(stage="flow"), Heartbeat()]
    log = recorded.events(recorded.hello(), *stages, recorded.finished())
    feed, clock = replay(tmp_path, log)
    reached = []
    for _ in range(4):
        feed.next_stage()
        clock.now += 100  # stands still meanwhile
        reached.append(len(feed.poll().events))
    assert reached == [2, 2, 2, 0]
    assert feed.ended


def test_seeking_forward_gives_the_rest_and_back_begins_anew(tmp_path: Path, said: list[AnyEvent]) -> None:
    feed, _ = replay(tmp_path, said)
    feed.pause()
    feed.seek(6.2)
    assert (feed.poll().events, feed.position) == (said[:7], 6.2)
    feed.seek_fraction(0.25)
    heard = feed.poll()
    assert (heard.restart, heard.events, feed.position) == (True, said[:3], 2.5)
    feed.to_end()
    heard = feed.poll()
    assert (heard.restart, heard.events) == (False, said[3:])
    feed.seek(-5)
    assert feed.poll().events == said[:1]


def test_back_and_forth_between_two_looks_is_one_restart(tmp_path: Path, said: list[AnyEvent]) -> None:
    feed, _ = replay(tmp_path, said)
    feed.pause()
    feed.seek(8)
    feed.poll()
    feed.seek(2)
    feed.seek(4)
    heard = feed.poll()
    assert (heard.restart, heard.events) == (True, said[:5])


def test_waits_for_a_person_are_short_and_all_else_keeps_its_pace() -> None:
    waits: list[AnyEvent] = [
        Paused(stage="flow", reason="step"),
        *[Heartbeat()] * 5,
        StageStarted(stage="flow"),
        Heartbeat(),
    ]
    played = recorded.events(recorded.hello(), *waits, every=2.0)
    assert timeline(played) == [0.0, 2.0, *[3.0] * 6, 5.0]


def test_a_recording_without_an_end_is_given_one(tmp_path: Path) -> None:
    said = recorded.working(3)
    feed, _ = replay(tmp_path, said)
    feed.to_end()
    heard = feed.poll().events
    assert heard[:5] == said
    assert kinds(heard[5:]) == ["FindingEvent", "Failed"]
    assert feed.ended


def test_no_recording_is_said_with_its_remedy(tmp_path: Path) -> None:
    for run in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(ProbeError, match="expected a recorded run") as refused:
            ReplayFeed(run)
        assert "--out" in refused.value.remedy


def test_a_replay_folds_to_the_state_of_the_live_run(tmp_path: Path, said: list[AnyEvent]) -> None:
    live = ScreenState()
    for event in said:
        live = fold(live, event)
    feed, _ = replay(tmp_path, said)
    feed.to_end()
    state = ScreenState()
    for event in feed.poll().events:
        state = fold(state, event)
    assert state == live
    assert isinstance(state.ended, Finished)
    assert isinstance(said[0], Hello)
