"""What the screen drives: an engine of its own, a run of somebody else's, a recording."""

from __future__ import annotations

import asyncio
from pathlib import Path

from probe_engine.control import Break, Continue, Pause, Step
from probe_engine.errors import ProbeError
from probe_engine.spec import Resolved
from probe_tui.engine_process import EngineProcess
from probe_tui.feeds import AttachFeed, Feed, LiveFeed, News, ReplayFeed
from probe_tui.runs import next_run, run_folder


class Session:
    """Events come from a feed; commands are refused where there is nobody to take them."""

    owns_engine = False
    live = True
    """The run's time passes between its events, too."""
    why_not = "nothing here takes commands"

    def __init__(self, run: Path) -> None:
        self.run = run
        self.feed: Feed | None = None

    async def start(self) -> None:
        """Opens the feed."""

    @property
    def badge(self) -> str:
        """Where events come from, in a word."""
        return "○ starting" if self.feed is None else f"● {self.feed.badge}"

    @property
    def ended(self) -> bool:
        """Nothing more is to come."""
        return self.feed is not None and self.feed.ended

    @property
    def resolved(self) -> Resolved:
        """The options of the run, for a re-run.

        Raises:
            ProbeError: there is no re-run here.
        """
        raise ProbeError(self.why_not)

    def poll(self) -> News:
        """What came since the last look."""
        return News() if self.feed is None else self.feed.poll()

    def next_stage(self) -> None:
        """One stage on."""
        raise ProbeError(self.why_not)

    def run_all(self) -> None:
        """To the end."""
        raise ProbeError(self.why_not)

    def toggle(self, *, waits: bool) -> None:
        """Pauses, or goes on where it waits."""
        raise ProbeError(self.why_not)

    def break_on(self, status: str) -> None:
        """Waits at the first finding of this status."""
        raise ProbeError(self.why_not)

    def close(self) -> None:
        """Ends the engine, where this session has one and did not leave it running; waits for it."""

    async def stop(self) -> None:
        """The same, without holding the screen."""
        await asyncio.to_thread(self.close)

    def leave_running(self) -> None:
        """Lets the engine go on without a screen."""

    def rerun(self, resolved: Resolved) -> None:
        """Runs again with other options, in a new folder."""
        raise ProbeError(self.why_not)


class LiveSession(Session):
    """An engine in a process of its own.

    Raises:
        ProbeError: the run folder can't be made (RUN003).
    """

    owns_engine = True

    def __init__(self, resolved: Resolved) -> None:
        super().__init__(run_folder(resolved.spec))
        self._first = self.run
        self._resolved = resolved
        self._engine: EngineProcess | None = None
        self._stepping = True

    async def start(self) -> None:
        """Starts the engine: it loads, and waits."""
        self._engine = EngineProcess(self._resolved, self.run, [Step()])
        self.feed = LiveFeed(self._engine)

    @property
    def resolved(self) -> Resolved:
        """The options of the current run."""
        return self._resolved

    def next_stage(self) -> None:
        """One stage on, then wait."""
        self._stepping = True
        self._send(Step())

    def run_all(self) -> None:
        """To the end."""
        self._stepping = False
        self._send(Continue())

    def toggle(self, *, waits: bool) -> None:
        """Pauses between micro-batches; goes on as before."""
        if waits:
            self._send(Step() if self._stepping else Continue())
        else:
            self._send(Pause())

    def break_on(self, status: str) -> None:
        """never, fail or warn."""
        self._send(Break(on=status))  # type: ignore[arg-type]

    def close(self) -> None:
        """Ends the engine, unless it was left running."""
        if self._engine is not None:
            self._engine.stop()

    def leave_running(self) -> None:
        """The engine goes on to its end."""
        if self._engine is not None:
            self._engine.leave_running()

    def rerun(self, resolved: Resolved) -> None:
        """In the same worker, which may hold the model."""
        if self._engine is None:
            raise ProbeError("the engine has not started yet")
        following = next_run(self._first)
        self._engine.rerun(resolved, following, [Step()])
        self.run, self._resolved, self._stepping = following, resolved, True

    def _send(self, command: Step | Continue | Pause | Break) -> None:
        if self._engine is None:
            raise ProbeError("the engine has not started yet")
        self._engine.send(command)


class AttachedSession(Session):
    """Follows a run that another process works on."""

    why_not = "this run belongs to another process: attached screens only look"

    async def start(self) -> None:
        """Opens the log."""
        self.feed = AttachFeed(self.run)

    @property
    def badge(self) -> str:
        """Says whether the run is going on, silent, finished or dead."""
        return f"● attached, {self.feed.status}" if isinstance(self.feed, AttachFeed) else "○ attaching"


class ReplaySession(Session):
    """Plays a recording.

    Raises:
        ProbeError: there is none.
    """

    live = False
    why_not = "a recording can't be run again: probe-tui CHECKPOINT runs"

    def __init__(self, run: Path) -> None:
        super().__init__(run)
        self.player = ReplayFeed(run)
        self.feed = self.player

    @property
    def badge(self) -> str:
        """How fast it plays, and how far it is."""
        pace = f"{self.player.speed:g}×" if self.player.playing else "‖"
        return f"● replay {pace} {self.player.fraction:.0%}"

    def next_stage(self) -> None:
        """One event on."""
        self.player.step()

    def run_all(self) -> None:
        """To the end at once."""
        self.player.to_end()

    def toggle(self, *, waits: bool) -> None:
        """Plays or pauses."""
        del waits
        if self.player.playing:
            self.player.pause()
        else:
            self.player.play()

    def faster(self, factor: float) -> None:
        """Changes the speed."""
        self.player.set_speed(self.player.speed * factor)

    def seek(self, step: float) -> None:
        """Moves by a share of the whole, back or forth."""
        self.player.seek_fraction(min(1.0, max(0.0, self.player.fraction + step)))
