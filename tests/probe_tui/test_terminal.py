"""The whole program in a terminal: driven by keys, and ended in every way that a terminal knows.

However it ends, the terminal is as it was, no process is left, and the run folder holds what was found.
"""

from __future__ import annotations

import fcntl
import os
import pty
import resource
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import checkpoints
import msgspec
import pytest
from terminal import ENTERED, Terminal

from probe_engine.events import AnyEvent, Hello, Paused, Units
from probe_engine.report import Report
from probe_tui.feeds import Tail
from probe_tui.state import STAGES

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

CTRL_C, CTRL_Q = "\x03", "\x11"
NOT_PASSED_ON = ("CI", "NO_COLOR", "PYTEST_CURRENT_TEST")


class Session(Terminal):
    """probe-tui on a checkpoint, and its run."""

    def __init__(self, checkpoint: Path, run: Path, *options: str, memory: int | None = None) -> None:
        self.run = run
        environment = {
            k: v for k, v in os.environ.items() if k not in NOT_PASSED_ON and not k.startswith("PROBE_")
        }
        environment |= {"TERM": "xterm-256color", "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}
        command = [sys.executable, "-m", "probe_tui", str(checkpoint), "--out", str(run), *options]
        super().__init__(command, environment, memory=memory)
        self.wait_for(lambda: ENTERED in self.output)

    @property
    def events(self) -> list[AnyEvent]:
        """What the engine has said so far."""
        return Tail(self.run / "events.jsonl").poll().events

    @property
    def report(self) -> Report:
        """The report that the run left."""
        return msgspec.json.decode((self.run / "report.json").read_bytes(), type=Report)

    @property
    def engine(self) -> int:
        """The worker's process number."""
        hello = self.events[0]
        assert isinstance(hello, Hello)
        return hello.pid

    def heard(self, kind: type[AnyEvent], count: int = 1) -> None:
        """Waits until the engine has said so many events of a kind."""
        self.wait_for(lambda: sum(isinstance(e, kind) for e in self.events) >= count)

    def reach(self, moment: str) -> None:
        """Goes on to a moment of the run: importing, waiting or working."""
        if moment == "importing":
            self.wait_for(lambda: children(self.process.pid))
        else:
            self.heard(Paused)
        if moment == "working":
            self.press("a")
            self.heard(Units)

    def left_behind(self) -> list[int]:
        """The processes that came from it and are still there, a moment after it ended."""
        deadline = time.monotonic() + 3
        while (left := processes_of(self.run)) and time.monotonic() < deadline:
            time.sleep(0.05)
        return left


def children(pid: int) -> list[int]:
    return [child for child, parent, _ in processes() if parent == pid]


def processes_of(run: Path) -> list[int]:
    """The processes whose command line names a run, zombies left out."""
    return [pid for pid, _, command in processes() if str(run).encode() in command]


def processes() -> Iterator[tuple[int, int, bytes]]:
    """Number, parent's number, command line of every process that lives."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            parent = (process / "stat").read_text().rpartition(")")[2].split()[1]
            yield int(process.name), int(parent), (process / "cmdline").read_bytes()
        except OSError:  # it ended meanwhile
            continue


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Measured in a moment."""
    return checkpoints.run(tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Measured for longer than a test waits."""
    return checkpoints.run(tmp_path_factory.mktemp("long"), prompts=1000, responses=8)


def test_stage_by_stage_with_the_keyboard_and_ctrl_c_at_each(checkpoint: Path, tmp_path: Path) -> None:
    with Session(checkpoint, tmp_path / "run", "--fail-on", "never") as session:
        session.press(CTRL_C)
        for waits, stage in enumerate(STAGES[1:], start=1):
            session.heard(Paused, waits)
            paused = [e for e in session.events if isinstance(e, Paused)]
            assert paused[-1].stage == stage
            session.press(CTRL_C)
            session.press("n")
        session.wait_for("✓ Judge")
        session.press(CTRL_C)
        assert session.process.poll() is None
        session.press(CTRL_Q)
        assert session.exit_code() == 0
        assert session.unrestored() == []
        assert session.left_behind() == []
        assert session.report.run.status == "complete"


@pytest.mark.parametrize("moment", ["importing", "waiting", "working"])
def test_leaving_and_stopping_the_engine(long: Path, tmp_path: Path, moment: str) -> None:
    with Session(long, tmp_path / "run") as session:
        session.reach(moment)
        session.press(CTRL_Q)
        session.wait_for("stop it and leave")
        session.press("s")
        assert session.exit_code() == 130
        assert session.unrestored() == []
        assert session.left_behind() == []
        assert (session.report.run.status, session.report.run.exit_code) == ("partial", 130)
        assert (session.report.checkpoint is not None) == (moment != "importing")
        assert bool(session.report.units) == (moment == "working")


def test_leaving_the_engine_running(checkpoint: Path, tmp_path: Path) -> None:
    with Session(checkpoint, tmp_path / "run") as session:
        session.reach("waiting")
        session.press(CTRL_Q)
        session.wait_for("leave it running")
        session.press("l")
        assert session.exit_code() == 0
        assert session.unrestored() == []
        session.wait_for("probe-tui --attach")
        session.wait_for((session.run / "report.json").exists)
        assert session.left_behind() == []
        assert session.report.run.status == "complete"


@pytest.mark.parametrize("moment", ["importing", "waiting", "working"])
def test_closing_the_terminal(long: Path, tmp_path: Path, moment: str) -> None:
    with Session(long, tmp_path / "run") as session:
        session.reach(moment)
        session.hang_up()
        assert session.exit_code() in (129, -signal.SIGHUP)
        assert session.left_behind() == []
        assert session.report.run.exit_code == 130


def test_a_plain_kill_of_the_screen(long: Path, tmp_path: Path) -> None:
    with Session(long, tmp_path / "run") as session:
        session.reach("working")
        session.process.terminate()
        assert session.exit_code() == 130
        assert session.unrestored() == []
        assert session.left_behind() == []
        assert session.report.run.exit_code == 130


def test_a_log_that_is_cut_then_an_engine_that_is_killed(checkpoint: Path, tmp_path: Path) -> None:
    with Session(checkpoint, tmp_path / "run") as session:
        session.reach("waiting")
        engine = session.engine
        session.wait_for("CKPT001")
        os.truncate(session.run / "events.jsonl", 200)
        session.wait_for("became shorter")
        os.kill(engine, signal.SIGKILL)
        session.wait_for("SIGKILL")
        assert session.process.poll() is None
        session.press(CTRL_Q)
        assert session.exit_code() == 4
        assert session.unrestored() == []
        assert session.left_behind() == []
        assert session.report.run.exit_code == 4


def test_memory_that_runs_out(checkpoint: Path, tmp_path: Path) -> None:
    # Enough for a screen, too little for torch.
    with Session(checkpoint, tmp_path / "run", memory=400 << 20) as session:
        session.wait_for("ran out of memory")
        session.press(CTRL_Q)
        assert session.exit_code() == 4
        assert session.unrestored() == []
        assert session.left_behind() == []


def test_a_disk_that_fills_up(checkpoint: Path, tmp_path: Path) -> None:
    with Session(checkpoint, tmp_path / "run") as session:
        session.reach("waiting")
        full = (session.run / "events.jsonl").stat().st_size + 100
        resource.prlimit(session.engine, resource.RLIMIT_FSIZE, (full, full))
        session.press("a")
        session.wait_for("RUN003")
        session.press(CTRL_Q)
        assert session.exit_code() == 3
        assert session.unrestored() == []
        assert session.left_behind() == []
        assert session.report.checkpoint is not None


def test_a_terminal_that_goes_without_a_signal(tmp_path: Path, long: Path) -> None:
    """It controls no session, as under some supervisors: nobody is told, and reading it never ends."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
    environment = {k: v for k, v in os.environ.items() if k not in ("CI", "NO_COLOR")}
    screen = subprocess.Popen(
        [sys.executable, "-m", "probe_tui", str(long), "--out", str(tmp_path / "run")],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env=environment | {"TERM": "xterm-256color"},
        start_new_session=True,
    )
    os.close(slave)
    os.read(master, 1)
    os.close(master)
    assert screen.wait(60) == 128 + signal.SIGHUP
