"""The engine's process: how it is started, commanded and ended, and what is said of each end.

Small scripts stand in for the worker where only the process matters: a real one imports torch for seconds.
"""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import checkpoints
import msgspec
import pytest
import recorded

from probe_engine.control import Break, Continue, ControlFile, Rerun, Step, Stop
from probe_engine.errors import ProbeError
from probe_engine.events import AnyEvent, Failed, FindingEvent, Finished, Paused, encode
from probe_engine.report import Report
from probe_engine.report import encode as encode_report
from probe_engine.sources.run_folder import read_events, read_spec
from probe_engine.spec import Resolved, resolve
from probe_tui.engine_end import describe, log_tail
from probe_tui.engine_process import LADDER, WORKER, EngineProcess
from probe_tui.feeds import LiveFeed, ReplayFeed
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


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts a script as a worker, in a new folder; none is left afterwards."""
    for name, event in (("hello", recorded.hello()), ("finished", recorded.finished())):
        (tmp_path / name).write_bytes(encode(event))
    engines: list[EngineProcess] = []

    def start(script: str, **options: object) -> EngineProcess:
        worker = (sys.executable, "-S", "-c", PRELUDE + script)
        run = tmp_path / f"run{len(engines)}"
        options.setdefault("ladder", SHORT_LADDER)
        engines.append(EngineProcess(resolve({}), run, worker=worker, **options))  # type: ignore[arg-type]
        return engines[-1]

    yield start
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


# Starting


def test_the_folder_holds_options_and_commands_before_the_process_reads_them(start: Start) -> None:
    engine = start("print(open(run + '/control.jsonl').read(), flush=True); time.sleep(60)")
    wait_for(lambda: log_tail(engine.run))
    assert log_tail(engine.run) == ('{"do":"step"}',)
    assert read_spec(engine.run) == resolve({})


def test_it_has_no_input_and_a_group_of_its_own_and_the_environment(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    engine = start(
        "print(repr(sys.stdin.read()), os.getpgrp() == os.getsid(0) == os.getpid(),"
        " os.environ['CUDA_VISIBLE_DEVICES']); sys.stderr.write('narration\\n'); time.sleep(60)"
    )
    wait_for(lambda: len(log_tail(engine.run)) == 2)
    assert log_tail(engine.run) == ("'' True 7", "narration")


def test_a_folder_that_holds_a_run_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    recorded.write(tmp_path, recorded.working(1))
    with pytest.raises(ProbeError, match="holds a run already") as refused:
        EngineProcess(resolve({}), tmp_path)
    assert refused.value.code == "RUN003"
    assert [p.name for p in tmp_path.iterdir()] == ["events.jsonl"]


def test_a_place_that_can_t_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "control.jsonl").symlink_to("/dev/full")
    for run, why in ((tmp_path / "file" / "run", "Not a directory"), (tmp_path / "full", "No space left")):
        with pytest.raises(ProbeError, match=why) as refused:
            EngineProcess(resolve({}), run)
        assert refused.value.code == "RUN003"


def test_a_worker_that_can_t_be_started_is_said(tmp_path: Path) -> None:
    with pytest.raises(ProbeError, match="can't be started: No such file") as refused:
        EngineProcess(resolve({}), tmp_path / "run", worker=("/nowhere/python",))
    assert (refused.value.code, refused.value.exit_code) == ("RUN001", 4)


# Ending


@pytest.mark.parametrize(
    ("ignored", "by"),
    [((), signal.SIGINT), (("SIGINT",), signal.SIGTERM), (("SIGINT", "SIGTERM"), signal.SIGKILL)],
)
def test_an_engine_that_reads_no_command_is_ended_by_the_mildest_signal_that_works(
    start: Start, ignored: tuple[str, ...], by: signal.Signals
) -> None:
    ignores = "".join(f"signal.signal(signal.{name}, signal.SIG_IGN);" for name in ignored)
    engine = start(ignores + "say('hello'); time.sleep(60)")
    wait_for((engine.run / "events.jsonl").exists)
    end = engine.stop()
    assert end is not None
    assert (end.kind, end.finding) == ("stopped", None)
    assert engine._process.returncode == -by
    assert not engine.alive
    assert not lives(engine.pid)
    assert engine.stop() is end
    # The log lacked its end: it says now what an interrupted run says, and so does the report.
    *_, last = read_events(engine.run)
    assert isinstance(last, Failed)
    assert (last.message, last.run.exit_code) == ("interrupted", 130)
    assert written_report(engine.run).run.exit_code == 130


def test_the_stop_command_comes_first_and_is_enough(start: Start) -> None:
    script = "while 'stop' not in open(run + '/control.jsonl').read(): time.sleep(.01)"
    engine = start("say('hello');\n" + script, ladder=LADDER)
    wait_for((engine.run / "events.jsonl").exists)
    end = engine.stop()
    assert end is not None
    assert (end.kind, engine._process.returncode) == ("stopped", 0)


@pytest.mark.parametrize("over", [True, False])
def test_an_engine_that_has_nothing_to_say_is_not_asked_first(start: Start, over: bool) -> None:
    said = "say('hello', 'finished'); open(run + '/report.json', 'x');" if over else ""
    engine = start(said + "print('up', flush=True); time.sleep(60)", ladder=LADDER)
    wait_for(lambda: log_tail(engine.run))
    began = time.monotonic()
    end = engine.stop()
    assert end is not None
    assert end.kind == ("left" if over else "stopped")
    assert time.monotonic() - began < 2
    assert engine._process.returncode == -signal.SIGTERM


@pytest.mark.parametrize("how", ["stopped", "killed"])
def test_what_the_worker_started_goes_with_it(start: Start, how: str) -> None:
    child = "subprocess.Popen(['sleep', '60']).pid"
    engine = start(f"print({child}, flush=True); time.sleep(60)", ladder=((signal.SIGTERM, 5.0),))
    wait_for(lambda: log_tail(engine.run))
    (pid,) = map(int, log_tail(engine.run))
    assert lives(pid)
    if how == "killed":
        os.kill(engine.pid, signal.SIGKILL)
        wait_for(engine.poll)
    else:
        engine.stop()
    wait_for(lambda: not lives(pid), 5)


def test_an_engine_that_does_not_end_is_said_to_be_stuck(start: Start) -> None:
    engine = start("time.sleep(60)", ladder=())
    end = engine.stop()
    assert end is not None
    assert "does not end" in end.message
    os.kill(engine.pid, signal.SIGKILL)
    engine._process.wait()


# What is said of a death


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


# Silence


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


# Re-runs


def test_a_rerun_is_asked_for_before_the_stop_and_begins_the_feed_anew(start: Start) -> None:
    engine = start(
        "say('hello')\nnext = run + 'b'\n"
        "while 'stop' not in open(run + '/control.jsonl').read(): time.sleep(.01)\n"
        "run = next; say('hello', 'finished'); time.sleep(60)"
    )
    feed = LiveFeed(engine)
    wait_for(lambda: feed.poll().events)
    first, pid = engine.run, engine.pid
    following = first.with_name("run0b")
    engine.rerun(resolve({"seed": 7}), following, (Break(on="warn"), Continue()))
    assert ControlFile(first).poll() == [Step(), Rerun(run=str(following)), Stop()]
    assert ControlFile(following).poll() == [Break(on="warn"), Continue()]
    assert read_spec(following).spec.seed == 7
    news = feed.poll()
    assert news.restart
    assert isinstance([*news.events, *heard_until(feed, Finished)][-1], Finished)
    assert (engine.run, engine.pid) == (following, pid)
    assert os.path.samefile(first / "engine.log", following / "engine.log")


@pytest.mark.parametrize("gone", ["before", "meanwhile"])
def test_a_rerun_of_an_engine_that_is_gone_starts_another(start: Start, gone: str) -> None:
    engine = start(
        "say('hello'); print('up', flush=True)\n"
        "if run.endswith('run0'):\n"
        "    while not os.path.exists(run + '/go'): time.sleep(.01)\n"
        "    sys.exit(1)\n"
        "say('finished'); time.sleep(60)"
    )
    first, pid = engine.run, engine.pid
    if gone == "before":
        (first / "go").touch()
        wait_for(engine.poll)
    engine.rerun(resolve({}), first.with_name("run0.2"))
    (first / "go").touch()
    heard_until(LiveFeed(engine), Finished)
    assert engine.pid != pid
    assert engine.alive


def test_a_refused_rerun_leaves_the_run_alone(start: Start) -> None:
    engine = start("say('hello'); time.sleep(60)")
    run = engine.run
    wait_for((run / "events.jsonl").exists)
    with pytest.raises(ProbeError, match="holds a run already"):
        engine.rerun(resolve({}), run)
    assert engine.run == run
    assert ControlFile(run).poll() == [Step()]


# The real worker


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> Resolved:
    """Of a run on a tiny checkpoint."""
    checkpoint = checkpoints.run(tmp_path_factory.mktemp("checkpoint"))
    return resolve({"checkpoint": str(checkpoint), "fail_on": "never"})


@pytest.fixture
def engine(options: Resolved, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[EngineProcess]:
    """Waits before its second stage."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    engine = EngineProcess(options, tmp_path / "run")
    yield engine
    engine.stop()


def test_step_by_step_then_other_options_then_killed_then_another_engine(
    engine: EngineProcess, options: Resolved
) -> None:
    feed = LiveFeed(engine)
    first, pid = engine.run, engine.pid
    assert heard_until(feed, Paused)[-1].stage == "rollouts"  # type: ignore[union-attr]
    engine.send(Step())
    assert heard_until(feed, Paused)[-1].stage == "flow"  # type: ignore[union-attr]

    # Other options, in the middle of a run: the same process, which keeps the model.
    changed = msgspec.structs.replace(options, spec=msgspec.structs.replace(options.spec, seed=3))
    engine.rerun(changed, first.with_name("run.2"), (Continue(),))
    said = heard_until(feed, Finished)
    assert folded(said).report.config["seed"].value == 3
    assert folded(said).report.verdict is not None
    assert engine.pid == pid
    assert written_report(first).run.exit_code == 130

    # Killed while it waits for the next one: the run is over, nothing of it is taken back.
    os.kill(pid, signal.SIGKILL)
    wait_for(engine.poll)
    assert feed.poll().events == []
    engine.rerun(options, first.with_name("run.3"))
    assert heard_until(feed, Paused)[-1].stage == "rollouts"  # type: ignore[union-attr]
    assert engine.pid != pid

    # Killed in the middle of a run.
    os.kill(engine.pid, signal.SIGKILL)
    said = heard_until(feed, Failed)
    assert findings(said)[-1] == "RUN001"
    assert written_report(engine.run).checkpoint is not None


def test_memory_that_runs_out_is_said(options: Resolved, tmp_path: Path) -> None:
    limited = (
        "import os, resource, sys; resource.setrlimit(resource.RLIMIT_AS, (300 << 20,) * 2);"
        "os.execv(sys.argv[1], sys.argv[1:])"
    )
    engine = EngineProcess(options, tmp_path / "run", worker=(sys.executable, "-c", limited, *WORKER))
    said = heard_until(LiveFeed(engine), Failed)
    assert engine.end is not None
    assert engine.end.kind == "memory"
    assert "ran out of memory" in engine.end.message
    assert any(
        "--micro-batch" in c for e in said if isinstance(e, FindingEvent) for c in e.finding.remedy.commands
    )


@pytest.mark.skipif(sys.platform != "linux", reason="no limit for a process that runs")
def test_a_disk_that_fills_up_is_said_with_its_remedy(engine: EngineProcess) -> None:
    feed = LiveFeed(engine)
    heard_until(feed, Paused)
    full = (engine.run / "events.jsonl").stat().st_size + 100
    resource.prlimit(engine.pid, resource.RLIMIT_FSIZE, (full, full))
    engine.send(Continue())
    said = heard_until(feed, Failed)
    assert findings(said)[-1] == "RUN003"
    assert engine.end is not None
    assert "File too large" in engine.end.message
    assert written_report(engine.run).checkpoint is not None
    assert written_report(engine.run).run.exit_code == 3


LEAVER = """
import sys, time
from pathlib import Path
import msgspec
from probe_engine.spec import Resolved
from probe_tui.engine_process import EngineProcess
from probe_tui.feeds import LiveFeed

engine = EngineProcess(msgspec.json.decode(sys.argv[1], type=Resolved), Path(sys.argv[2]))
feed = LiveFeed(engine)
while sys.argv[3] != "vanish at once" and not any(type(e).__name__ == "Paused" for e in feed.poll().events):
    time.sleep(0.02)
print(engine.pid, flush=True)
if sys.argv[3] == "leave":
    engine.leave_running()
    assert engine.stop() is None
"""
"""A screen that starts an engine, and is gone once that waits, or while it imports torch."""


@pytest.mark.parametrize("how", ["leave", "vanish", "vanish at once"])
def test_without_its_screen_a_run_goes_on_only_if_it_was_told_to(
    options: Resolved, tmp_path: Path, how: str
) -> None:
    run = tmp_path / "run"
    screen = subprocess.run(
        [sys.executable, "-c", LEAVER, msgspec.json.encode(options), str(run), how],
        stdout=subprocess.PIPE,
        check=True,
        timeout=60,
    )
    pid = int(screen.stdout)
    wait_for(lambda: not lives(pid))
    *_, last = read_events(run)
    assert isinstance(last, Finished if how == "leave" else Failed)
    assert written_report(run).run.status == ("complete" if how == "leave" else "partial")
