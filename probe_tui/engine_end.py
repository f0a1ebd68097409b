"""How an engine's process ended, in words and as the events that its log lacks."""

from __future__ import annotations

import re
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from probe_engine.catalogue import ENTRIES
from probe_engine.errors import ENGINE_DIED, INTERRUPTED, UNREADABLE
from probe_engine.events import AnyEvent, Failed, FindingEvent
from probe_engine.report import Finding, RunInfo, finding

Kind = Literal["left", "stopped", "memory", "killed", "crashed", "folder", "gone"]

TAIL_LINES = 20
TAIL_BYTES = 16 * 1024

OUT_OF_MEMORY = re.compile(
    r"MemoryError|bad_alloc|out of memory|failed to map segment|memory allocation"
    r"|can(?:no|')t allocate memory",
    re.I,
)
"""What Python, C++, torch, the dynamic linker and BLAS write where memory runs out."""

CONTROL_SEQUENCES = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|[\x00-\x08\x0b-\x1f\x7f]")


@dataclass(frozen=True)
class EngineEnd:
    """Why there is no engine any more."""

    kind: Kind
    message: str
    remedy: str = ""
    log_tail: tuple[str, ...] = ()
    """The end of engine.log."""
    code: str = ""
    """Of the finding; empty where nothing is wrong."""
    exit_code: int = ENGINE_DIED
    """Of a run that could not say its own."""

    @property
    def finding(self) -> Finding | None:
        """What the checks show, None where nothing is wrong."""
        if not self.code:
            return None
        return finding(
            self.code,
            "crash" if self.code == "RUN001" else "fail",
            self.message,
            evidence={"engine.log": list(self.log_tail)},
            remedy=self.remedy,
            commands=() if self.kind in ("crashed", "gone") else None,
        )

    def events(self, run: Path, *, seq: int, at: float) -> list[AnyEvent]:
        """The last events of a run that could not say them itself.

        Args:
            run: its folder.
            seq: of its last event.
            at: that event's time.
        """
        found = self.finding
        said: list[AnyEvent] = [] if found is None else [FindingEvent(finding=found, seq=seq + 1, time=at)]
        info = RunInfo(folder=str(run), status="partial", exit_code=self.exit_code)
        said.append(
            Failed(message=self.message, remedy=self.remedy, run=info, seq=seq + len(said) + 1, time=at)
        )
        return said


def describe(
    returncode: int | None, log: tuple[str, ...], *, asked: bool, over: bool, memory_ran_out: bool
) -> EngineEnd:
    """How a process ended.

    Args:
        returncode: as `subprocess` gives it: negative for a signal, None where it does not end.
        log: the end of engine.log.
        asked: it was told to end.
        over: its run had said its own end before.
        memory_ran_out: the kernel killed some process for memory meanwhile.
    """
    if returncode is None:
        return EngineEnd("killed", "the engine does not end, not even by SIGKILL", _STUCK, log, "RUN001")
    if over and (asked or returncode >= 0):
        return EngineEnd("left", "the engine left after its run", "", log)
    if asked:
        return EngineEnd("stopped", "interrupted", _KEPT, log, exit_code=INTERRUPTED)
    if (returncode == -signal.SIGKILL and memory_ran_out) or any(OUT_OF_MEMORY.search(line) for line in log):
        how = f"killed by {_name(-returncode)}" if returncode < 0 else f"exit code {returncode}"
        return EngineEnd("memory", f"the engine ran out of memory ({how})", _SMALLER, log, "RUN001")
    if returncode < 0:
        return _by_signal(-returncode, log)
    last = log[-1] if log else "engine.log is empty"
    if returncode == UNREADABLE:
        return EngineEnd(
            "folder",
            f"the engine could not write its run folder: {' '.join(log[-2:]) or 'the disk may be full'}",
            ENTRIES["RUN003"].remedy,
            log,
            "RUN003",
            UNREADABLE,
        )
    return EngineEnd("crashed", f"the engine died with exit code {returncode}: {last}", _ISSUE, log, "RUN001")


def _by_signal(number: int, log: tuple[str, ...]) -> EngineEnd:
    name = _name(number)
    if number == signal.SIGKILL:
        message = "the engine was killed (SIGKILL): by somebody, or by the system where memory ran out"
        return EngineEnd("killed", message, _SMALLER, log, "RUN001")
    if number in (signal.SIGABRT, signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE):
        message = f"the engine crashed in native code ({name})"
        return EngineEnd("crashed", message, _ISSUE, log, "RUN001")
    return EngineEnd("killed", f"the engine was ended from outside ({name})", _AGAIN, log, "RUN001")


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # real-time signals have no names
        return f"signal {number}"


def log_tail(run: Path) -> tuple[str, ...]:
    """The last lines of RUN/engine.log, without colours and what progress bars wrote over."""
    try:
        with (run / "engine.log").open("rb") as log:
            log.seek(max(0, log.seek(0, 2) - TAIL_BYTES))
            text = log.read().decode("utf-8", "replace")
    except OSError:
        return ()
    shown = (line.rstrip("\r").rpartition("\r")[2] for line in text.split("\n"))
    lines = (CONTROL_SEQUENCES.sub("", line).rstrip() for line in shown)
    return tuple(line for line in lines if line)[-TAIL_LINES:]


def oom_kills() -> int:
    """How many processes this system has killed for memory since it started; 0 where it does not say."""
    try:
        found = re.search(r"^oom_kill (\d+)$", Path("/proc/vmstat").read_text(), re.M)
    except OSError:
        return 0
    return int(found[1]) if found else 0


_KEPT = "what was found before is in the report"
_SMALLER = "fewer sequences a pass, shorter batches; then run again"
_ISSUE = "send the end of engine.log with an issue"
_AGAIN = "run again"
_STUCK = "a driver or a disk may hold it; look at its state in ps"
