"""Wire types of the stream: what the engine says while it works, one JSON line an event.

`seq`, `time` and `v` are stamped by whoever records the stream; stages leave them at their defaults.
Readers skip kinds that they do not know (`decode` returns None for them).
"""

from __future__ import annotations

from typing import Any

import msgspec

from probe_engine.report import (
    CheckpointInfo,
    Environment,
    Estimates,
    Finding,
    Forecast,
    GradientFlow,
    Histograms,
    Influence,
    MethodInfo,
    Number,
    OnPolicy,
    RealizedRow,
    RolloutsInfo,
    RunInfo,
    SelfInfluence,
    Sweep,
    Tool,
    UnitRow,
    Verdict,
    to_json,
)
from probe_engine.spec import Setting

PROTOCOL = 1


class Event(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind"):
    """Base of all events."""

    seq: int = 0
    time: float = 0.0
    """Seconds since the run began, monotonic."""
    v: int = PROTOCOL


class Hello(Event, tag="hello", frozen=True, kw_only=True):
    """The first event: who speaks, with which options."""

    pid: int
    seed: int
    tool: Tool
    environment: Environment
    config: dict[str, Setting]


class StageStarted(Event, tag="stage_started", frozen=True, kw_only=True):
    stage: str


class Progress(Event, tag="progress", frozen=True, kw_only=True):
    """Work done so far in a stage, in `unit`s."""

    stage: str
    done: int
    total: int
    unit: str = "tokens"


class FindingEvent(Event, tag="finding", frozen=True, kw_only=True):
    finding: Finding


class Units(Event, tag="units", frozen=True, kw_only=True):
    """A micro-batch's rows. A row with a known id replaces the earlier one."""

    rows: list[UnitRow]


class HistogramEvent(Event, tag="histogram", frozen=True, kw_only=True):
    histograms: Histograms


class EstimateEvent(Event, tag="estimate", frozen=True, kw_only=True):
    estimates: Estimates


class Part(Event, tag="part", frozen=True, kw_only=True):
    """Parts of the report as they become known; null leaves a part as it is."""

    checkpoint: CheckpointInfo | None = None
    rollouts: RolloutsInfo | None = None
    gradient_flow: GradientFlow | None = None
    method: MethodInfo | None = None
    forecast: Forecast | None = None
    on_policy: OnPolicy | None = None
    realized: list[RealizedRow] | None = None
    sweep: Sweep | None = None
    self_influence: SelfInfluence | None = None
    influence: Influence | None = None
    verdict: Verdict | None = None


class StageFinished(Event, tag="stage_finished", frozen=True, kw_only=True):
    stage: str
    seconds: float


class Heartbeat(Event, tag="heartbeat", frozen=True, kw_only=True):
    """The engine lives, though it has nothing to say."""


class Paused(Event, tag="paused", frozen=True, kw_only=True):
    """The engine waits for a command; any later event but a heartbeat says that it goes on."""

    stage: str
    """The stage that it waits to begin; empty in the middle of one."""
    reason: str


class Contributions(Event, tag="contributions", frozen=True, kw_only=True):
    """Contributions to the entropy change among the units measured so far: provisional until all are."""

    ids: list[str]
    s: list[Number]
    """+η·s_n, null for role U"""
    r: list[Number]
    """−η·r_n"""
    s_rb: list[Number] = []
    """The same with X of (2b); empty where it is not computed"""
    r_rb: list[Number] = []


class Finished(Event, tag="finished", frozen=True, kw_only=True):
    run: RunInfo


class Failed(Event, tag="failed", frozen=True, kw_only=True):
    """The run stopped early; what was found before it stays."""

    message: str
    remedy: str
    run: RunInfo


AnyEvent = (
    Hello
    | StageStarted
    | Progress
    | FindingEvent
    | Units
    | HistogramEvent
    | EstimateEvent
    | Part
    | StageFinished
    | Heartbeat
    | Paused
    | Contributions
    | Finished
    | Failed
)

KINDS = frozenset(t.__struct_config__.tag for t in AnyEvent.__args__)


def encode(event: Event) -> bytes:
    """One JSON line, newline included."""
    return to_json(event) + b"\n"


def decode(line: bytes) -> AnyEvent | None:
    """Reads one line; None for a kind that this version does not know.

    Raises:
        msgspec.DecodeError: the line is not an event (a cut last line, for one).
    """
    head: Any = msgspec.json.decode(line)
    if not isinstance(head, dict) or head.get("kind") not in KINDS:
        return None
    event: AnyEvent = msgspec.convert(head, AnyEvent)
    return event
