"""Pages that need no run: findings explained, the list of checks, the report's schema."""

from __future__ import annotations

import textwrap

import msgspec

from probe_engine.catalogue import ENTRIES
from probe_engine.errors import UsageError
from probe_engine.report import json_schema as report_schema

WIDTH = 88


def explain(code: str, width: int = WIDTH) -> str:
    """What a finding means and how to mend it; commands are never broken.

    Raises:
        UsageError: no such code.
    """
    entry = ENTRIES.get(code.upper())
    if entry is None:
        raise UsageError(f"no finding has the code {code!r}", "probe-tui --list-checks lists them")
    parts = [
        f"{entry.code}  {entry.title}: {entry.fault}",
        *(
            textwrap.fill(f"{head}: {text}", width)
            for head, text in (
                ("What it means", entry.meaning),
                ("How it comes about", entry.origin),
                ("To see it by hand", entry.by_hand),
                ("Remedy", entry.remedy),
            )
            if text
        ),
    ]
    if entry.commands:
        parts.append("\n".join(f"  {line}" for line in entry.commands))
    if entry.causes:
        parts.append(f"Follows from {', '.join(entry.causes)} where one of them fired.")
    if entry.reference:
        parts.append(f"See {entry.reference}")
    return "\n\n".join(parts)


def list_checks() -> str:
    """Every finding, a line each."""
    width = max(len(entry.title) for entry in ENTRIES.values())
    return "\n".join(f"{e.code:<7}  {e.title:<{width}}  {e.fault}" for e in ENTRIES.values())


def json_schema() -> str:
    """The JSON Schema of `report.json`."""
    return msgspec.json.format(msgspec.json.encode(report_schema()), indent=2).decode()
