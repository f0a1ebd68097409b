"""The run of the screen's own engine."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from probe_engine.events import AnyEvent, FindingEvent
from probe_engine.liveness import SIGN_OF_LIFE, SILENT_SECONDS, silence
from probe_tui.engine_end import log_tail
from probe_tui.feeds.feed import Badge, News
from probe_tui.feeds.tail import Tail

if TYPE_CHECKING:
    from probe_tui.engine_process import EngineProcess

FIRST_EVENT_SECONDS = 60.0
"""Importing torch takes a few seconds, from a cold network disk many more."""


class LiveFeed:
    """The log of the engine's current run, its death and its silence; a re-run begins it anew.

    Args:
        engine: whose run it is.
        first: seconds after which an engine that has said nothing at all is reported.
        limit: the same for one that fell silent.
        clock: seconds, monotonic.
    """

    badge: Badge = "live"

    def __init__(
        self,
        engine: EngineProcess,
        *,
        first: float = FIRST_EVENT_SECONDS,
        limit: float = SILENT_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engine = engine
        self._first = first
        self._limit = limit
        self._clock = clock
        self._begin(engine.run)

    @property
    def ended(self) -> bool:
        """The run is over, by its own word or by its engine's death."""
        return self._tail.ended or self._buried

    def poll(self) -> News:
        """New events of the current run."""
        # Before the log is read: what a process wrote last is there once it is gone.
        end = self._engine.poll()
        moved = self._engine.run != self._run
        if moved:
            self._begin(self._engine.run)
        news = self._tail.poll()
        said = list(news.events)
        if said:
            self._heard, self._reported = self._clock(), False
        if end is not None and not self.ended:
            # The log lacks its end only where it could not be written there: a full disk, for one.
            self._buried = True
            said += end.events(self._run, seq=self._tail.seq, at=self._tail.time)
        elif not self.ended and not self._reported:
            said += self._silence()
        return News(said, restart=news.restart or moved)

    def _begin(self, run: Path) -> None:
        self._run = run
        self._tail = Tail(run / "events.jsonl")
        self._heard = self._clock()
        self._reported = self._buried = False

    def _silence(self) -> list[AnyEvent]:
        silent = self._clock() - self._heard
        if self._tail.hello is None:
            limit, expected = self._first, "the engine's first word"
        else:
            limit, expected = self._limit, SIGN_OF_LIFE
        if silent <= limit:
            return []
        self._reported = True
        seen = f"heard nothing for {silent:.0f} s; process {self._engine.pid} still runs"
        found = silence(silent, limit, seen, log_tail(self._run), expected=expected)
        return [FindingEvent(finding=found, time=self._tail.time)]
