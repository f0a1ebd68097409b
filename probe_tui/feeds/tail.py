"""Follows RUN/events.jsonl as it grows."""

from __future__ import annotations

import os
from pathlib import Path

from probe_engine import events
from probe_engine.events import AnyEvent, Failed, FindingEvent, Finished, Heartbeat, Hello
from probe_engine.report import finding
from probe_tui.feeds.feed import News


class Tail:
    """New events of a log, however it is written: in halves, cut, copied over, or not there yet.

    What has been said stays said: a log that became shorter is read again, and events that were
    seen before are known by their `seq`. Lines that are no events are passed over and reported.

    Args:
        path: the log.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0
        self._inode: int | None = None
        self._lines = 0
        self.hello: Hello | None = None
        self.seq = 0
        """Of the last event."""
        self.time = 0.0
        """Of the last event, seconds since the run began."""
        self.beats = False
        """The engine gives signs of life where it has nothing to say."""
        self.ended = False
        """The run said how it ended."""
        self.unfinished = b""
        """The end of the log, where it is less than a line."""

    def poll(self) -> News:
        """The events since the last look."""
        concerns: list[AnyEvent] = []
        try:
            with self._path.open("rb") as log:
                status = os.fstat(log.fileno())
                if self._inode not in (None, status.st_ino) or status.st_size < self._offset:
                    # A copy that is kept up to date is replaced as it grows: only less is worth a word.
                    if status.st_size < self._offset:
                        concerns.append(self._concern(_SHORTER))
                    self._offset = self._lines = 0
                self._inode = status.st_ino
                log.seek(self._offset)
                whole, newline, self.unfinished = log.read().rpartition(b"\n")
        except FileNotFoundError:
            return News()
        self._offset += len(whole) + len(newline)
        said: list[AnyEvent] = []
        unreadable: list[int] = []
        restart = False
        for line in whole.split(b"\n") if newline else ():
            self._lines += 1
            try:
                # After a cut the writer goes on at its own place: the hole before it reads as zeros.
                event = events.decode(line.lstrip(b"\0"))
            except (ValueError, RecursionError):  # what msgspec raises for any bytes at all
                unreadable.append(self._lines)
                continue
            if isinstance(event, Hello) and self.hello is not None and event != self.hello:
                restart = True
                said, self.seq, self.time, self.ended = [], 0, 0.0, False
            if event is not None and (not event.seq or event.seq > self.seq):
                self._note(event)
                said.append(event)
        if unreadable:
            concerns.append(self._concern(_UNREADABLE.format(lines=_numbers(unreadable))))
        return News([*said, *concerns], restart)

    def _note(self, event: AnyEvent) -> None:
        self.seq, self.time = max(self.seq, event.seq), max(self.time, event.time)
        if isinstance(event, Hello):
            self.hello = event
        elif isinstance(event, Heartbeat):
            self.beats = True
        elif isinstance(event, Finished | Failed):
            self.ended = True

    def _concern(self, message: str) -> FindingEvent:
        found = finding("RUN003", "warn", f"{self._path.name} {message}", evidence={"log": str(self._path)})
        return FindingEvent(finding=found, time=self.time)


_SHORTER = "became shorter while it was read: something else writes to it; what was read before stays"
_UNREADABLE = "holds lines that are no events, passed over: {lines}"


def _numbers(lines: list[int], shown: int = 5) -> str:
    listed = ", ".join(map(str, lines[:shown]))
    return listed + (f" and {len(lines) - shown} more" if len(lines) > shown else "")
