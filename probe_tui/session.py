"""What the screen drives: an engine of its own, a run of somebody else's, a recording."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Literal

from probe_engine.control import Break, Command, Continue, ControlFile, Pause, Step, Stop, send
from probe_engine.errors import ProbeError
from probe_engine.spec import Resolved
from probe_tui.engine_process import EngineProcess
from probe_tui.feeds import AttachFeed, Feed, LiveFeed, News, ReplayFeed
from probe_tui.runs import next_run, run_folder

Status = Literal["never", "fail", "warn"]

RUNNING = frozenset(("next_stage", "run_all", "pause", "stop", "rerun", "breakpoint"))
"""What an engine at work can be told, by the actions of the keys."""


class Session:
    """Events come from a feed; commands are refused where there is nobody to take them."""

    owns_engine = False
    live = True
    """The run's time passes between its events, too."""
    breakpoint: Status = "never"
    """The least status at which the engine waits."""

    def __init__(self, run: Path) -> None:
        self.run = run
        self.feed: Feed | None = None

    @property
    def commands(self) -> frozenset[str]:
        """The actions that do something now: the bottom line offers no others."""
        return frozenset()

    @property
    def why_not(self) -> str:
        """Why the others do nothing, and what would."""
        return "nothing here takes commands"

    async def start(self) -> None:
        """Opens the feed."""

    @property
    def badge(self) -> str:
        """Where events come from, in a word."""
        if self.feed is None:
            return "○ starting"
        return "○ over" if self.ended else f"● {self.feed.badge}"

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

    def break_on(self, status: Status) -> None:
        """Waits at the first finding of this status, or a worse one."""
        raise ProbeError(self.why_not)

    async def interrupt(self) -> None:
        """Ends the run; what was found stays."""
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

    @property
    def commands(self) -> frozenset[str]:
        """All while the run goes on; afterwards it can only be run again."""
        return frozenset(("rerun",)) if self.ended else RUNNING

    @property
    def why_not(self) -> str:
        """A run that is over takes no commands."""
        return "this run is over: r runs again with changed options"

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

    def break_on(self, status: Status) -> None:
        """never, fail or warn."""
        self._send(Break(on=status))
        self.breakpoint = status

    async def interrupt(self) -> None:
        """The engine ends with its run."""
        await self.stop()

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
        self._engine.rerun(resolved, following, [Break(on=self.breakpoint), Step()])
        self.run, self._resolved, self._stepping = following, resolved, True

    def _send(self, command: Step | Continue | Pause | Break) -> None:
        if self._engine is None:
            raise ProbeError("the engine has not started yet")
        self._engine.send(command)


class AttachedSession(Session):
    """Follows a run that another process works on, and hands its engine commands where it reads them.

    Leaving changes nothing in that run: what waits waits on, and a breakpoint stays.
    """

    def __init__(self, run: Path) -> None:
        super().__init__(run)
        self._said = ControlFile(run)
        self._stepping = False

    async def start(self) -> None:
        """Opens the log."""
        self.feed = AttachFeed(self.run)

    @property
    def badge(self) -> str:
        """Says whether the run is going on, silent, finished or dead."""
        return f"● attached, {self._status}" if self.feed is not None else "○ attaching"

    @property
    def commands(self) -> frozenset[str]:
        """Those of an engine at work; its options are not this screen's to change."""
        reads = isinstance(self.feed, AttachFeed) and self.feed.takes_commands
        return RUNNING - {"rerun"} if reads else frozenset()

    @property
    def why_not(self) -> str:
        """Who does not listen, and why."""
        if self._status in ("finished", "dead"):
            return f"this run is {self._status}: probe-tui CHECKPOINT starts another"
        if self.commands:
            return "its options belong to the screen that started it"
        return "this run was started without a screen and reads no commands: Ctrl-C where it runs stops it"

    def poll(self) -> News:
        """New events; and what was commanded meanwhile, by whichever screen."""
        for command in self._said.poll():
            match command:
                case Step() | Continue():
                    self._stepping = isinstance(command, Step)
                case Break():
                    self.breakpoint = command.on
                case _:
                    pass
        return super().poll()

    def next_stage(self) -> None:
        """One stage on, then wait."""
        self._send(Step(attached=True))

    def run_all(self) -> None:
        """To the end."""
        self._send(Continue())

    def toggle(self, *, waits: bool) -> None:
        """Pauses between micro-batches; goes on as before."""
        if waits:
            self._send(Step(attached=True) if self._stepping else Continue())
        else:
            self._send(Pause(attached=True))

    def break_on(self, status: Status) -> None:
        """never, fail or warn."""
        self._send(Break(on=status, attached=True))
        self.breakpoint = status

    async def interrupt(self) -> None:
        """Ends the run; its engine says when it is over."""
        self._send(Stop())

    def _send(self, command: Command) -> None:
        if not self.commands:
            raise ProbeError(self.why_not)
        try:
            send(self.run, command)
        except OSError as error:
            raise ProbeError(
                f"{self.run}: the command can't be written: {error.strerror or error}",
                "the screen that started the run has the same keys",
            ) from error

    @property
    def _status(self) -> str:
        return self.feed.status if isinstance(self.feed, AttachFeed) else "unknown"


class ReplaySession(Session):
    """Plays a recording.

    Raises:
        ProbeError: there is none.
    """

    live = False

    def __init__(self, run: Path) -> None:
        super().__init__(run)
        self.player = ReplayFeed(run)
        self.feed = self.player

    @property
    def commands(self) -> frozenset[str]:
        """What moves in time."""
        return frozenset(("next_stage", "run_all", "pause", "speed", "seek"))

    @property
    def why_not(self) -> str:
        """It has happened."""
        return "a recording can't be changed: probe-tui CHECKPOINT runs"

    @property
    def badge(self) -> str:
        """How fast it plays, and how far it is."""
        pace = f"{self.player.speed:g}×" if self.player.playing else "‖"
        return f"● replay {pace} {self.player.fraction:.0%}"

    def next_stage(self) -> None:
        """To the beginning of the next stage, or to the end, and waits there."""
        self.player.next_stage()

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
