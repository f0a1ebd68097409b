"""The real worker: commanded, re-run, killed, out of memory, out of disk, without its screen."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import checkpoints
import msgspec
import pytest
from workers import findings, folded, heard_until, lives, wait_for, written_report

from probe_engine.control import Continue, Step
from probe_engine.events import Failed, FindingEvent, Finished, Paused
from probe_engine.sources.run_folder import read_events
from probe_engine.spec import Resolved, resolve
from probe_tui.engine_process import WORKER, EngineProcess
from probe_tui.feeds import LiveFeed


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
