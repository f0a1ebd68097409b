"""The report: everything that a run found, and its JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from probe_engine.report.cost import Forecast
from probe_engine.report.estimates import Estimates
from probe_engine.report.findings import Finding
from probe_engine.report.flow import GradientFlow, MethodInfo, OnPolicy
from probe_engine.report.realized import RealizedRow, SelfInfluence, Sweep, Verdict
from probe_engine.report.source import CheckpointInfo, Environment, RolloutsInfo, Tool
from probe_engine.report.units import Histograms, Influence, UnitRow
from probe_engine.spec import Setting

SCHEMA_VERSION = 1


class RunInfo(msgspec.Struct, frozen=True, kw_only=True):
    folder: str | None = None
    status: Literal["complete", "partial"] = "partial"
    exit_code: int = 4


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What a run found. Parts that a run did not reach are null."""

    schema_version: int = SCHEMA_VERSION
    tool: Tool
    environment: Environment | None = None
    config: dict[str, Setting] = {}
    checkpoint: CheckpointInfo | None = None
    rollouts: RolloutsInfo | None = None
    findings: list[Finding] = []
    gradient_flow: GradientFlow | None = None
    on_policy: OnPolicy | None = None
    method: MethodInfo | None = None
    forecast: Forecast | None = None
    units: list[UnitRow] = []
    estimates: Estimates = Estimates()
    realized: list[RealizedRow] = []
    sweep: Sweep | None = None
    self_influence: SelfInfluence | None = None
    influence: Influence | None = None
    histograms: Histograms = Histograms()
    verdict: Verdict | None = None
    timings: dict[str, float] = {}
    run: RunInfo = RunInfo()

    def __str__(self) -> str:
        """What is wrong, causes alone, with remedies; then the verdict: for a training script's log."""
        lines = []
        for found in self.worst(("crash", "fail", "warn")):
            if not found.cause:
                lines += [f"{found.code} {found.status}: {found.message}", f"  {found.remedy.text}"]
                lines += [f"    {command}" for command in found.remedy.commands]
        if self.verdict is not None:
            lines.append(f"{self.verdict.status}: {self.verdict.reason}")
        return "\n".join(lines) or "nothing is wrong"

    def worst(self, statuses: Sequence[str]) -> list[Finding]:
        """The findings that have one of these statuses."""
        return [f for f in self.findings if f.status in statuses]


def encode(report: Report) -> bytes:
    """The report as indented JSON; not-a-number becomes null."""
    return msgspec.json.format(to_json(report), indent=2) + b"\n"


def to_json(value: msgspec.Struct) -> bytes:
    """A wire type as JSON. A file name that is no Unicode gets question marks for what is none."""
    try:
        return msgspec.json.encode(value)
    except UnicodeEncodeError:
        return msgspec.json.encode(_encodable(msgspec.to_builtins(value)))


def _encodable(value: Any) -> Any:
    match value:
        case str():
            return value.encode("utf-8", "replace").decode()
        case dict():
            return {_encodable(key): _encodable(held) for key, held in value.items()}
        case list() | tuple():
            return [_encodable(held) for held in value]
        case _:
            return value


def json_schema() -> dict[str, Any]:
    """The JSON Schema of `report.json`."""
    return msgspec.json.schema(Report)
