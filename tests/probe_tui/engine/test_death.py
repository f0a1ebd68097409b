"""What is said of an engine that died, and of one that fell silent."""

from __future__ import annotations

from pathlib import Path

import pytest
from workers import Start, findings, folded, heard_until, wait_for

from probe_engine.control import Continue
from probe_engine.errors import ProbeError
from probe_engine.events import Failed, FindingEvent, Finished
from probe_engine.report import encode as encode_report
from probe_engine.sources.run_folder import read_events
from probe_tui.engine_end import describe, log_tail
from probe_tui.feeds import LiveFeed, ReplayFeed


@pytest.mark.parametrize(
    ("script", "kind", "code", "words"),
    [
        ("os.kill(os.getpid(), 9)", "killed", "RUN001", "SIGKILL"),
        ("os.kill(os.getpid(), 15)", "killed", "RUN001", "from outside (SIGTERM)"),
        ("os.kill(os.getpid(), 11)", "crashed", "RUN001", "native code (SIGSEGV)"),
        ("import nothing_of_this_name", "crashed", "RUN001", "No module named 'nothing_of_this_name'"),
        ("bytearray(1 << 60)", "memory", "RUN001", "ran out of memory (exit code 1)"),
        (
            "print('terminate called after throwing: std::bad_alloc', flush=True); os.abort()",
            "memory",
            "RUN001",
            "ran out of memory (killed by SIGABRT)",
        ),
        ("print('no space left\\ngive room'); sys.exit(3)", "folder", "RUN003", "no space left give room"),
        ("sys.exit(0)", "crashed", "RUN001", "exit code 0"),
    ],
)
def test_a_death_is_a_finding_with_a_remedy_and_ends_the_run(
    start: Start, script: str, kind: str, code: str, words: str
) -> None:
    engine = start("say('hello');" + script)
    feed = LiveFeed(engine)
    said = heard_until(feed, Failed)
    assert engine.end is not None
    assert engine.end.kind == kind
    assert words in engine.end.message
    assert findings(said) == [code]
    state = folded(said)
    assert isinstance(state.ended, Failed)
    assert words in state.ended.message
    assert state.ended.remedy
    assert state.report.run.exit_code == (3 if code == "RUN003" else 4)
    # The same for a replay, and for a script that reads the report.
    again = ReplayFeed(engine.run)
    again.to_end()
    assert folded(again.poll().events) == state
    assert (engine.run / "report.json").read_bytes() == encode_report(state.report)
    assert feed.poll().events == []


def test_the_kernel_s_own_count_tells_a_kill_for_memory_from_another() -> None:
    for killed, kind in ((True, "memory"), (False, "killed")):
        assert describe(-9, (), asked=False, over=False, memory_ran_out=killed).kind == kind
    assert describe(-15, (), asked=False, over=False, memory_ran_out=True).kind == "killed"


def test_a_death_after_the_run_takes_nothing_back(start: Start) -> None:
    engine = start("say('hello', 'finished'); os.kill(os.getpid(), 9)")
    feed = LiveFeed(engine)
    said = heard_until(feed, Finished)
    wait_for(engine.poll)
    said += feed.poll().events
    assert findings(said) == []
    assert isinstance(said[-1], Finished)
    with pytest.raises(ProbeError, match="no engine to continue: the engine was killed"):
        engine.send(Continue())


def test_a_line_that_was_cut_by_the_death_is_taken_away(start: Start) -> None:
    engine = start("say('hello'); open(run + '/events.jsonl', 'ab').write(b'{\"kind\":\"unit')")
    said = heard_until(LiveFeed(engine), Failed)
    assert findings(said) == ["RUN001"]
    assert list(read_events(engine.run)) == said


def test_a_folder_that_takes_nothing_more_tells_the_screen_all_the_same(start: Start) -> None:
    """The worker lost its folder: what the log lacks is said to the screen alone."""
    engine = start("say('hello'); os.rename(run, run + '-away'); sys.exit(3)")
    said = heard_until(LiveFeed(engine), Failed)
    assert findings(said) == ["RUN003"]


def test_the_end_of_the_log_is_read_as_a_terminal_shows_it(tmp_path: Path) -> None:
    assert log_tail(tmp_path) == ()
    lines = "".join(f"line {n}\n" for n in range(5000))
    bars = "load  10%\rload 100%\r\n\x1b[31mred\x1b[0m \x07\n\n"
    (tmp_path / "engine.log").write_bytes((lines + bars).encode() + b"not \xff text")
    assert log_tail(tmp_path)[-4:] == ("line 4999", "load 100%", "red", "not \ufffd text")
    assert len(log_tail(tmp_path)) == 20


def test_no_first_word_is_said_with_the_end_of_the_log_and_taken_up_when_it_comes(start: Start) -> None:
    now = 0.0
    engine = start(
        "print('importing', flush=True)\n"
        "while not os.path.exists(run + '/go'): time.sleep(.01)\n"
        "say('hello'); time.sleep(60)"
    )
    feed = LiveFeed(engine, first=60, limit=20, clock=lambda: now)
    wait_for(lambda: log_tail(engine.run))
    now = 59
    assert feed.poll().events == []
    now = 61
    (silent,) = feed.poll().events
    assert isinstance(silent, FindingEvent)
    assert (silent.finding.code, silent.finding.status) == ("RUN002", "warn")
    assert silent.finding.evidence == {"engine.log": ["importing"]}
    assert feed.poll().events == []
    (engine.run / "go").touch()
    wait_for(lambda: feed.poll().events)
    now = 80
    assert feed.poll().events == []
    now = 82
    assert findings(feed.poll().events) == ["RUN002"]
