"""A run that somebody else started, here or on another machine that shares the folder."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from probe_engine.events import FindingEvent
from probe_engine.liveness import SILENT_SECONDS, Status, judge, silence
from probe_tui.engine_end import EngineEnd, log_tail
from probe_tui.feeds.feed import Badge, News
from probe_tui.feeds.tail import Tail


class AttachFeed:
    """Follows the log of such a run, and says when its engine died or fell silent.

    A run that goes on after it was given up (a slow network disk) begins anew, without its death.

    Args:
        run: its folder.
        limit: seconds of stillness that are too long.
        now: seconds since the epoch, as files are stamped.
        is_writer: whether a process of this machine writes to the log.
    """

    badge: Badge = "attached"

    def __init__(
        self,
        run: Path,
        *,
        limit: float = SILENT_SECONDS,
        now: Callable[[], float] = time.time,
        is_writer: Callable[[int, Path], bool] | None = None,
    ) -> None:
        self.status: Status = "running"
        self._run = run
        self._log = run / "events.jsonl"
        self._limit = limit
        self._now = now
        self._is_writer = is_writer or writes
        self._tail = Tail(self._log)

    @property
    def ended(self) -> bool:
        """The run is over, or nobody is left to go on with it."""
        return self.status in ("finished", "dead")

    @property
    def takes_commands(self) -> bool:
        """An engine with a control file gives signs of life; a headless run has neither."""
        return self._tail.beats and not self.ended

    def poll(self) -> News:
        """New events, and what became of the run."""
        news = self._tail.poll()
        if news.events and self.status == "dead":
            self._tail = Tail(self._log)
            news = News(self._tail.poll().events, restart=True)
        before, still = self.status, self._still()
        hello = self._tail.hello
        self.status = judge(
            over=self._tail.ended,
            process=hello is not None and self._is_writer(hello.pid, self._log),
            beats=self._tail.beats,
            still=still,
            limit=self._limit,
        )
        said = list(news.events)
        if self.status == "dead" != before:
            said += self._death(still).events(self._run, seq=self._tail.seq, at=self._tail.time)
        elif self.status == "silent" != before:
            said.append(self._silence(still))
        return News(said, news.restart)

    def _still(self) -> float:
        for path in (self._log, self._run):
            try:
                return max(0.0, self._now() - path.stat().st_mtime)
            except OSError:
                continue
        return float("inf")

    def _death(self, still: float) -> EngineEnd:
        hello = self._tail.hello
        who = f"process {hello.pid} is not here" if hello is not None else "no process said a word"
        cut = ", its last line is cut" if self._tail.unfinished else ""
        return EngineEnd(
            "gone",
            f"the engine died: {who}, and the log has been still for {still:.0f} s without an end{cut}",
            "run again; the end of engine.log, if there is one, may say why",
            log_tail(self._run),
            "RUN001",
        )

    def _silence(self, still: float) -> FindingEvent:
        seen = f"the log has been still for {still:.0f} s"
        found = silence(still, self._limit, seen, log_tail(self._run))
        return FindingEvent(finding=found, time=self._tail.time)


def writes(pid: int, log: Path) -> bool:
    """Whether a process lives here and has the log open; numbers of processes are used again.

    Where the system does not tell what a process has open, that it lives must do.
    """
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        return True
    process = Path(f"/proc/{pid}")
    try:
        # In a container without an init, a killed process stays a zombie for ever.
        if (process / "stat").read_text().rpartition(")")[2].split()[0] in "ZX":
            return False
        return any(opened.exists() and opened.samefile(log) for opened in (process / "fd").iterdir())
    except OSError:
        return True
