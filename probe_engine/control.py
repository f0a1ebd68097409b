"""Commands to a running engine: `RUN/control.jsonl`, one a line, and the gate that obeys them.

Breakpoints and pauses live here, in the engine: in the screen they would race with it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import msgspec

from probe_engine.events import AnyEvent, FindingEvent, Paused, Progress, StageStarted, Units

POLL_SECONDS = 0.05


class Step(msgspec.Struct, frozen=True, omit_defaults=True, tag="step", tag_field="do"):
    """Run to the next stage's beginning and wait there."""

    attached: bool = False
    """By a screen that did not start the run: it waits, too, where the one that did is gone."""


class Continue(msgspec.Struct, frozen=True, tag="continue", tag_field="do"):
    """Run to the end."""


class Pause(msgspec.Struct, frozen=True, omit_defaults=True, tag="pause", tag_field="do"):
    """Wait after this micro-batch."""

    attached: bool = False
    """As a step's."""


class Break(msgspec.Struct, frozen=True, omit_defaults=True, tag="break", tag_field="do"):
    """Wait at the first finding of this status or a worse one; `never` takes it back."""

    on: Literal["warn", "fail", "never"]
    attached: bool = False
    """As a step's."""


class Stop(msgspec.Struct, frozen=True, tag="stop", tag_field="do"):
    """End the run; what was found stays."""


class Rerun(msgspec.Struct, frozen=True, tag="rerun", tag_field="do"):
    """After the end: run the spec of another run folder, with the loaded model where it is the same."""

    run: str


Command = Step | Continue | Pause | Break | Stop | Rerun
_decoder = msgspec.json.Decoder(Command)


class StopRequested(Exception):
    """The run is to end here."""


def send(run: Path, command: Command) -> None:
    """Appends a command to a run's control file."""
    with (run / "control.jsonl").open("ab") as control:
        control.write(msgspec.json.encode(command) + b"\n")


class ControlFile:
    """Reads commands as they are appended; lines that are no command are passed over."""

    def __init__(self, run: Path) -> None:
        self._path = run / "control.jsonl"
        self._offset = 0

    def poll(self) -> list[Command]:
        """The commands since the last look."""
        try:
            with self._path.open("rb") as control:
                control.seek(self._offset)
                whole, newline, _ = control.read().rpartition(b"\n")
        except FileNotFoundError:
            return []
        self._offset += len(whole) + len(newline)
        commands: list[Command] = []
        for line in whole.splitlines():
            try:
                commands.append(_decoder.decode(line))
            except (ValueError, RecursionError):  # what msgspec raises for any bytes at all
                continue
        return commands


class Gate:
    """Holds the engine at stage boundaries, between micro-batches and at breakpoints.

    Args:
        control: where commands come from.
        sleep: for tests.
        parent: the process without which nobody is left to command; default: whose child this one is now.
    """

    def __init__(
        self,
        control: ControlFile,
        sleep: Callable[[float], None] = time.sleep,
        parent: int | None = None,
    ) -> None:
        self._control = control
        self._sleep = sleep
        self._parent = os.getppid() if parent is None else parent
        self._stepping = False
        self._steps = 0
        self._pausing = False
        self._break_on: tuple[str, ...] = ()
        self._rerun: Rerun | None = None

    def __call__(self, event: AnyEvent, emit: Callable[[AnyEvent], None]) -> None:
        """Looks at the commands after an event, and waits where they say so; `emit` tells that it waits.

        Raises:
            StopRequested: by a command, or because the process that started this one is gone.
        """
        self._read()
        match event:
            case StageStarted():
                if self._stepping and self._steps == 0:
                    emit(Paused(stage=event.stage, reason="step"))
                    self._wait()
                elif self._stepping:
                    self._steps -= 1
            case Progress() | Units():
                if self._pausing:
                    emit(Paused(stage="", reason="pause"))
                    self._wait()
            case FindingEvent():
                if event.finding.status in self._break_on:
                    emit(Paused(stage="", reason=f"breakpoint: {event.finding.code}"))
                    self._wait()
            case _:
                pass

    def wait_for_rerun(self) -> Rerun | None:
        """After a run: the next spec, or None when it is time to leave."""
        try:
            self._idle_until(lambda: self._rerun is not None)
        except StopRequested:
            return None
        return self._rerun

    def _wait(self) -> None:
        self._pausing = True
        steps = self._steps
        self._idle_until(lambda: not self._pausing or self._steps != steps)
        self._pausing = False
        if self._steps:
            self._steps -= 1

    def _idle_until(self, released: Callable[[], bool]) -> None:
        while not released():
            orphan = os.getppid() != self._parent
            self._sleep(POLL_SECONDS)
            self._read()
            if orphan and not released():
                # What the parent said last is read, and nobody is left to say more.
                raise StopRequested

    def _read(self) -> None:
        for command in self._control.poll():
            if isinstance(command, Step | Pause | Break) and command.attached:
                self._parent = os.getppid()  # whoever that is now: somebody else is there to command
            match command:
                case Step():
                    self._stepping, self._steps = True, self._steps + 1
                case Continue():
                    self._stepping, self._steps, self._pausing = False, 0, False
                case Pause():
                    self._pausing = True
                case Break():
                    self._break_on = _AT_OR_ABOVE[command.on]
                case Stop():
                    raise StopRequested
                case Rerun():
                    self._rerun = command


_AT_OR_ABOVE = {"warn": ("warn", "fail", "crash"), "fail": ("fail", "crash"), "never": ()}
