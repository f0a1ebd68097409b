"""What every source of events looks like to the screen."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, Protocol

from probe_engine.events import AnyEvent

Badge = Literal["live", "attached", "replay"]


@dataclass(frozen=True)
class News:
    """The events since the last look."""

    events: list[AnyEvent] = field(default_factory=list)
    restart: bool = False
    """They begin the run anew: fold them from the empty state."""


class Feed(Protocol):
    """A stream of events that is looked at now and then; looking never waits."""

    @property
    def badge(self) -> Badge:
        """What the screen shows of where its events come from."""

    @property
    def ended(self) -> bool:
        """No further event is to come."""

    def poll(self) -> News:
        """What came since the last look."""
