"""Plays a recorded run."""

from __future__ import annotations

import time
from bisect import bisect_right
from collections.abc import Callable, Iterable
from pathlib import Path

from probe_engine.errors import ProbeError
from probe_engine.events import AnyEvent, Heartbeat, Paused, StageStarted
from probe_tui.engine_end import EngineEnd, log_tail
from probe_tui.feeds.feed import Badge, News
from probe_tui.feeds.tail import Tail

SLOWEST, FASTEST = 0.25, 64.0

WAIT_SECONDS = 1.0
"""How long a wait for a person takes in the replay."""


class ReplayFeed:
    """A log at the pace at which it was written, or another; seeking back begins it anew.

    Args:
        run: the folder of the run.
        speed: seconds of the recording in one second.
        clock: seconds, monotonic.

    Raises:
        ProbeError: there is no recording.
    """

    badge: Badge = "replay"

    def __init__(self, run: Path, *, speed: float = 1.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._events = recording(run)
        self._due = timeline(self._events)
        self._clock = clock
        self._speed = _within(speed)
        self._next = 0
        """Index of the next event to hand on."""
        self._until = 0
        """Index before which all are to be handed on."""
        self._restart = False
        self._playing = True
        self._anchor = (clock(), 0.0)
        """A moment and the position then."""

    @property
    def ended(self) -> bool:
        """All is told."""
        return self._next == len(self._events)

    @property
    def playing(self) -> bool:
        """It goes on by itself."""
        return self._playing and self._until < len(self._events)

    @property
    def speed(self) -> float:
        """Seconds of the recording in one second."""
        return self._speed

    @property
    def duration(self) -> float:
        """Seconds that the recording takes at speed 1."""
        return self._due[-1]

    @property
    def position(self) -> float:
        """Seconds into the recording."""
        moment, position = self._anchor
        elapsed = (self._clock() - moment) * self._speed if self._playing else 0.0
        return min(position + elapsed, self.duration)

    @property
    def fraction(self) -> float:
        """The position, 0 to 1."""
        return self.position / self.duration if self.duration else 1.0

    def poll(self) -> News:
        """The events that became due, all from the first one after seeking back."""
        if self._playing:
            self._until = max(self._until, bisect_right(self._due, self.position))
        said, restart = self._events[self._next : self._until], self._restart
        self._next, self._restart = self._until, False
        return News(said, restart)

    def pause(self) -> None:
        """Stands still."""
        self._move(self.position, playing=False)

    def play(self) -> None:
        """Goes on from here."""
        self._move(self.position, playing=True)

    def step(self) -> None:
        """One event further, then stands still."""
        if self._until < len(self._events):
            self._until += 1
        self._move(self._due[self._until - 1], playing=False)

    def next_stage(self) -> None:
        """To the beginning of the next stage, or to the end; stands still there."""
        rest = range(max(self._until, 1), len(self._events))
        following = next(
            (i for i in rest if isinstance(self._events[i], StageStarted)), len(self._events) - 1
        )
        self._until = following + 1
        self._move(self._due[following], playing=False)

    def set_speed(self, speed: float) -> None:
        """Another pace from here on, within 0.25 and 64."""
        self._move(self.position, playing=self._playing)
        self._speed = _within(speed)

    def seek(self, seconds: float) -> None:
        """Goes to a position, forward or back."""
        position = min(max(seconds, 0.0), self.duration)
        self._until = bisect_right(self._due, position)
        if self._until < self._next:
            self._next, self._restart = 0, True
        self._move(position, playing=self._playing)

    def seek_fraction(self, fraction: float) -> None:
        """Goes to a share of the whole, 0 to 1."""
        self.seek(fraction * self.duration)

    def to_end(self) -> None:
        """All at once."""
        self.seek(self.duration)

    def _move(self, position: float, *, playing: bool) -> None:
        self._anchor = (self._clock(), position)
        self._playing = playing


def recording(run: Path) -> list[AnyEvent]:
    """The events of a recorded run; one that lacks its end is given one that says so.

    Raises:
        ProbeError: there are none.
    """
    tail = Tail(run / "events.jsonl")
    try:
        said = tail.poll().events
    except OSError as error:
        raise _no_recording(run, error.strerror or str(error)) from error
    if not said:
        raise _no_recording(run, "there is no event")
    if not tail.ended:
        end = EngineEnd(
            "gone",
            "the recording stops without an end: the engine died there, or still ran when it was copied",
            "probe-tui --attach RUN tells whether it still runs",
            log_tail(run),
            "RUN001",
        )
        said += end.events(run, seq=tail.seq, at=tail.time)
    return said


def timeline(said: Iterable[AnyEvent]) -> list[float]:
    """Seconds of replay after which each event is due: as recorded, waits for a person shortened."""
    due: list[float] = []
    position = before = 0.0
    left: float | None = None
    for event in said:
        gap = max(0.0, event.time - before)
        before += gap
        if left is not None:
            gap = min(gap, left)
            left -= gap
        position += gap
        due.append(position)
        if isinstance(event, Paused):
            left = WAIT_SECONDS
        elif not isinstance(event, Heartbeat):
            left = None
    return due


def _within(speed: float) -> float:
    return min(max(speed, SLOWEST), FASTEST)


def _no_recording(run: Path, why: str) -> ProbeError:
    return ProbeError(
        f"{run}/events.jsonl: expected a recorded run: {why}",
        "give the folder that a run was told to write with --out",
        commands=("probe-tui --replay RUN",),
    )
