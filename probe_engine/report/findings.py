"""Findings: what a check saw, and what to do about it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from probe_engine.catalogue import ENTRIES

Status = Literal["ok", "info", "warn", "fail", "crash", "skip"]

Number = float | None
"""A measured number: not-a-number goes over the wire as null, and a finding says why."""


class Remedy(msgspec.Struct, frozen=True, kw_only=True):
    """What to do: words, and commands to type."""

    text: str = ""
    commands: list[str] = []


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One check's outcome, carrying its own explanation."""

    code: str
    title: str
    status: Status
    message: str
    """What was expected, what was seen, what it means here."""
    value: float | str | None = None
    threshold: float | str | None = None
    evidence: dict[str, Any] = {}
    remedy: Remedy = Remedy()
    reference: str = ""
    cause: str = ""
    """The code of the root cause that this finding follows from; empty where it stands for itself."""
    duration_ms: Number = None


def finding(
    code: str,
    status: Status,
    message: str,
    *,
    value: float | str | None = None,
    threshold: float | str | None = None,
    evidence: dict[str, Any] | None = None,
    remedy: str | None = None,
    commands: Sequence[str] | None = None,
) -> Finding:
    """A finding of the catalogue; title, reference and (unless given) remedy come from its entry."""
    entry = ENTRIES[code]
    quiet = status in ("ok", "skip")
    return Finding(
        code=code,
        title=entry.title,
        status=status,
        message=message,
        value=_float(value),
        threshold=_float(threshold),
        evidence=evidence or {},
        remedy=Remedy()
        if quiet
        else Remedy(
            text=entry.remedy if remedy is None else remedy,
            commands=list(entry.commands if commands is None else commands),
        ),
        reference=entry.reference,
    )


def _float(value: float | str | None) -> float | str | None:
    """Counts become floats, as they would come back from the wire."""
    return float(value) if isinstance(value, int) else value
