"""What the screen knows: `fold(state, event) -> state`, pure. The report's own fold is the engine's."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal

from probe_engine.assembly import empty
from probe_engine.assembly import fold as fold_report
from probe_engine.events import (
    AnyEvent,
    Contributions,
    Failed,
    FindingEvent,
    Finished,
    Heartbeat,
    Hello,
    Paused,
    Progress,
    StageFinished,
    StageStarted,
)
from probe_engine.report import Finding, Report

STAGES = ("load", "rollouts", "flow", "measure", "estimate", "realize", "judge")
"""In the order in which they run."""

StageStatus = Literal["waiting", "running", "done", "stopped"]


@dataclass(frozen=True)
class StageState:
    """One stage as the screen shows it."""

    name: str
    status: StageStatus = "waiting"
    began: float = 0.0
    """Seconds since the run began."""
    seconds: float = 0.0
    """How long it took, or has taken so far."""
    done: int = 0
    total: int = 0
    unit: str = ""
    worst: str = "ok"
    """The worst status among its findings."""

    @property
    def rate(self) -> float | None:
        """Units a second, None where nothing is done yet."""
        return self.done / self.seconds if self.done and self.seconds > 0 else None

    @property
    def left(self) -> float | None:
        """Seconds left at this rate."""
        return (self.total - self.done) / self.rate if self.rate else None


@dataclass(frozen=True)
class ScreenState:
    """Everything that is drawn; built from events alone."""

    report: Report = field(default_factory=empty)
    stages: tuple[StageState, ...] = tuple(StageState(name) for name in STAGES)
    paused: Paused | None = None
    ended: Finished | Failed | None = None
    pid: int | None = None
    time: float = 0.0
    """Of the last event, seconds since the run began."""
    provisional: Contributions | None = None
    """Contributions among the units measured so far; None once they are final."""
    events: int = 0

    @property
    def running(self) -> StageState | None:
        """The stage at work."""
        return next((s for s in self.stages if s.status == "running"), None)

    def stage(self, name: str) -> StageState:
        """The stage of that name."""
        return next(s for s in self.stages if s.name == name)


SEVERITY = ("ok", "skip", "info", "warn", "fail", "crash")


def fold(state: ScreenState, event: AnyEvent) -> ScreenState:
    """The state after one more event."""
    if state.paused is not None and state.running is not None and not isinstance(event, Heartbeat):
        # The time that a stage was held is not its own.
        held = max(0.0, event.time - state.paused.time)
        state = _stage(state, state.running.name, began=state.running.began + held)
    state = replace(
        state,
        report=fold_report(state.report, event),
        time=max(state.time, event.time),
        events=state.events + 1,
        paused=state.paused if isinstance(event, Heartbeat) else None,
    )
    match event:
        case Hello():
            return replace(state, pid=event.pid)
        case StageStarted():
            return _stage(state, event.stage, status="running", began=event.time)
        case StageFinished():
            return _stage(state, event.stage, status="done", seconds=event.seconds)
        case Progress():
            began = state.stage(event.stage).began
            return _stage(
                state,
                event.stage,
                seconds=event.time - began,
                done=event.done,
                total=event.total,
                unit=event.unit,
            )
        case FindingEvent():
            return _finding(state, event.finding)
        case Paused():
            return replace(state, paused=event)
        case Contributions():
            return replace(state, provisional=event)
        case Failed():
            ended = replace(state, ended=event)
            stopped = ended.running
            return ended if stopped is None else _stage(ended, stopped.name, status="stopped")
        case Finished():
            return replace(state, ended=event)
        case _:
            final = state.report.estimates.u_statistic is not None
            return replace(state, provisional=None) if final and state.provisional else state


def _stage(state: ScreenState, name: str, **changes: Any) -> ScreenState:
    if name not in {s.name for s in state.stages}:
        # A newer engine may have a stage that this screen does not know: it is shown all the same.
        state = replace(state, stages=(*state.stages, StageState(name)))
    return replace(
        state,
        stages=tuple(replace(s, **changes) if s.name == name else s for s in state.stages),
    )


def _finding(state: ScreenState, found: Finding) -> ScreenState:
    stage = state.running
    if stage is None or SEVERITY.index(found.status) <= SEVERITY.index(stage.worst):
        return state
    return _stage(state, stage.name, worst=found.status)
