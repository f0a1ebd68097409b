"""fold(report, event) -> report: the report is what its events have said so far.

A run that is cut short, killed or replayed therefore has the report of all that it found.
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from probe_engine import __version__
from probe_engine.events import (
    AnyEvent,
    EstimateEvent,
    Failed,
    FindingEvent,
    Finished,
    Hello,
    HistogramEvent,
    Part,
    StageFinished,
    Units,
)
from probe_engine.report import Report, Tool

S = TypeVar("S", bound=msgspec.Struct)


def empty() -> Report:
    """A report of nothing yet."""
    return Report(tool=Tool(version=__version__))


def fold(report: Report, event: AnyEvent) -> Report:
    """The report after one more event; pure. Kinds that say nothing of the result leave it as it is."""
    match event:
        case Hello():
            return _replace(report, tool=event.tool, environment=event.environment, config=event.config)
        case FindingEvent():
            return _replace(report, findings=[*report.findings, event.finding])
        case Part():
            return _merge(report, event, Part)
        case Units():
            rows = {row.id: row for row in (*report.units, *event.rows)}
            return _replace(report, units=list(rows.values()))
        case EstimateEvent():
            return _replace(report, estimates=event.estimates)
        case HistogramEvent():
            return _replace(
                report, histograms=_merge(report.histograms, event.histograms, type(event.histograms))
            )
        case StageFinished():
            return _replace(report, timings={**report.timings, event.stage: event.seconds})
        case Finished() | Failed():
            return _replace(report, run=event.run)
        case _:
            return report


def _replace(report: Report, **changes: Any) -> Report:
    return msgspec.structs.replace(report, **changes)


def _merge(into: S, said: msgspec.Struct, kind: type[msgspec.Struct]) -> S:
    """`into` with the fields of `said` that are not None."""
    own = {"seq", "time", "v"}
    changes = {
        name: value
        for name in kind.__struct_fields__
        if name not in own and (value := getattr(said, name)) is not None
    }
    return msgspec.structs.replace(into, **changes)
