"""The engine in a process of its own: start it, command it, end it, say how it ended.

`subprocess.Popen`, not asyncio's: asyncio's transport kills its child when the event loop closes, and a
run may be left running. Nothing here waits but `stop`, which a screen calls in a thread.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from probe_engine import control
from probe_engine.catalogue import ENTRIES
from probe_engine.control import Break, Command, Continue, Rerun, Step, Stop
from probe_engine.errors import ENGINE_DIED, ProbeError
from probe_engine.report import to_json
from probe_engine.spec import Resolved
from probe_tui import epilogue
from probe_tui.engine_end import EngineEnd, describe, log_tail, oom_kills

# -P: the working directory is a training project's; its modules must not stand in for a library's.
WORKER = (sys.executable, "-P", "-m", "probe_engine", "--serve")

Rung = tuple[signal.Signals | None, float]
LADDER: tuple[Rung, ...] = (
    (None, 3.0),
    (signal.SIGINT, 3.0),
    (signal.SIGTERM, 2.0),
    (signal.SIGKILL, 5.0),
)
"""How an engine is ended: by the command (None), then by signals; seconds of patience with each."""

POLL_SECONDS = 0.05


class EngineProcess:
    """A worker and the run that it works on.

    Args:
        resolved: the options.
        run: a new folder.
        commands: what the run is to do first; without any it runs to the end.
        worker: the command line before the folder.
        ladder: how it is ended.
        sleep: between looks while it ends.

    Raises:
        ProbeError: the folder can't be written or holds a run already (RUN003), or no process starts.
    """

    def __init__(
        self,
        resolved: Resolved,
        run: Path,
        commands: Sequence[Command] = (Step(),),
        *,
        worker: Sequence[str] = WORKER,
        ladder: Sequence[Rung] = LADDER,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.run = run.absolute()
        self.end: EngineEnd | None = None
        self._worker = tuple(worker)
        self._ladder = tuple(ladder)
        self._sleep = sleep
        self._asked = self._left = self._handing_over = False
        self._settling = threading.Lock()
        prepare(self.run, resolved, commands)
        self._process = self._spawn()

    @property
    def pid(self) -> int:
        """Of the worker, which leads its process group."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """There is an engine to command."""
        return self.poll() is None and not self._left

    def poll(self) -> EngineEnd | None:
        """How the process ended; None while it runs. Never waits."""
        with self._settling:
            if self.end is None and not self._left and (code := self._process.poll()) is not None:
                self._sweep()
                if not self._take_over():
                    self._settle(code)
            return self.end

    def send(self, command: Command) -> None:
        """Hands the engine a command.

        Raises:
            ProbeError: there is no engine, or its folder can't be written.
        """
        if (end := self.poll()) is not None:
            raise ProbeError(
                f"no engine to {_verb(command)}: {end.message}",
                "r runs again",
                exit_code=ENGINE_DIED,
            )
        try:
            control.send(self.run, command)
        except OSError as error:
            raise _not_writable(self.run, error) from error

    def rerun(self, resolved: Resolved, run: Path, commands: Sequence[Command] = (Step(),)) -> None:
        """Runs other options in a new folder: in this worker, which may hold the model, or in a new one.

        Raises:
            ProbeError: as on construction; the current run then goes on.
        """
        following = run.absolute()
        prepare(following, resolved, commands)
        if not self.alive:
            self.run, self.end, self._asked = following, None, False
            self._process = self._spawn()
            return
        with suppress(OSError):  # one process, one log: the new folder shows it too
            os.link(self.run / "engine.log", following / "engine.log")
        # The next run first: nothing is read after a stop.
        self.send(Rerun(run=str(following)))
        if not epilogue.is_over(self.run):
            self.send(Stop())
        self.run, self._handing_over = following, True

    def stop(self) -> EngineEnd | None:
        """Ends the engine and all that it started, step by step; waits until it is gone.

        Returns:
            How it ended; None where it was left running.
        """
        for number, patience in self._ladder:
            if self.poll() is not None or self._left:
                return self.end
            if number in (None, signal.SIGINT) and self._nothing_to_lose():
                continue
            self._asked = True
            if number is not None:
                self._signal(number)
            self._wait(patience, commanding=number is None)
        if self.poll() is None:
            with self._settling:
                self._settle(None)
        return self.end

    def leave_running(self) -> None:
        """Lets the run go on to its end without a screen; the worker then leaves by itself.

        Raises:
            ProbeError: as `send`.
        """
        self.send(Break(on="never"))
        self.send(Continue())
        self._left = True

    def _spawn(self) -> subprocess.Popen[bytes]:
        self._handing_over = False
        self._oom_kills = oom_kills()
        try:
            log = (self.run / "engine.log").open("ab")
        except OSError as error:
            raise _not_writable(self.run, error) from error
        with log:
            try:
                return subprocess.Popen(
                    [*self._worker, f"--parent={os.getpid()}", str(self.run)],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env={**os.environ, "PYTHONUNBUFFERED": "1"},
                    # A group of its own: Ctrl-C and a closed terminal reach the screen alone.
                    start_new_session=True,
                )
            except OSError as error:
                raise ProbeError(
                    f"the engine can't be started: {error.strerror or error}",
                    "free memory or processes, then run again",
                    code="RUN001",
                    exit_code=ENGINE_DIED,
                ) from error

    def _take_over(self) -> bool:
        """Starts a new process where the old one was gone before it read that there is a next run."""
        if not self._handing_over or self._asked or (self.run / "events.jsonl").exists():
            return False
        try:
            self._process = self._spawn()
        except ProbeError:  # what ended the old one is then told of the new one
            return False
        return True

    def _wait(self, patience: float, *, commanding: bool) -> None:
        if commanding:
            with suppress(OSError):  # a full disk: signals remain
                control.send(self.run, Stop())
        deadline = time.monotonic() + patience
        while (
            self.poll() is None
            and time.monotonic() < deadline
            and not (commanding and self._nothing_to_lose())
        ):
            self._sleep(POLL_SECONDS)

    def _nothing_to_lose(self) -> bool:
        """The run has not begun, or is over and written: no command is read soon, and no word is missed."""
        return not (self.run / "events.jsonl").exists() or (self.run / "report.json").exists()

    def _settle(self, code: int | None) -> None:
        self.end = describe(
            code,
            log_tail(self.run),
            asked=self._asked,
            over=epilogue.is_over(self.run),
            memory_ran_out=oom_kills() > self._oom_kills,
        )
        # Where the folder can't be written, what the log lacks is said to the screen alone.
        with suppress(OSError):
            epilogue.close(self.run, self.end)

    def _sweep(self) -> None:
        """Ends what the worker started and left behind."""
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError, PermissionError):  # gone; a zombie, on macOS
            os.killpg(self._process.pid, number)


def prepare(run: Path, resolved: Resolved, commands: Sequence[Command]) -> None:
    """Makes the folder of a run to come: its options and its first commands.

    Raises:
        ProbeError: it can't be written, or holds a run already (RUN003).
    """
    try:
        run.mkdir(parents=True, exist_ok=True)
        if (run / "events.jsonl").exists():
            raise ProbeError(
                f"{run}: expected a new folder for this run, it holds a run already",
                "give another folder",
                code="RUN003",
                commands=("probe-tui CHECKPOINT --out another/folder",),
            )
        (run / "spec.json").write_bytes(to_json(resolved))
        for command in commands:
            control.send(run, command)
    except OSError as error:
        raise _not_writable(run, error) from error


def _not_writable(run: Path, error: OSError) -> ProbeError:
    entry = ENTRIES["RUN003"]
    return ProbeError(
        f"{run}: the run folder can't be written: {error.strerror or error}",
        entry.remedy,
        code=entry.code,
        commands=entry.commands,
    )


def _verb(command: Command) -> str:
    return type(command).__name__.lower()
