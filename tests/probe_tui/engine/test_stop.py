"""How the engine's process is ended: by a command, else by the mildest signal that works."""

from __future__ import annotations

import os
import signal

import pytest
from workers import Start, lives, wait_for, written_report

from probe_engine.control import ControlFile, Step
from probe_engine.events import Failed
from probe_engine.sources.run_folder import read_events
from probe_tui.engine_end import log_tail
from probe_tui.engine_process import LADDER


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
    end = engine.stop()
    assert end is not None
    assert end.kind == ("left" if over else "stopped")
    assert ControlFile(engine.run).poll() == [Step()]  # which began the run
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
