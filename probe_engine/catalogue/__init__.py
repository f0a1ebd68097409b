"""Every finding as plain data, one file a family. Codes are never reused."""

from __future__ import annotations

from probe_engine.catalogue import (
    adapter,
    checkpoint,
    environment,
    gradient,
    optimizer,
    rollouts,
    run,
    statistics,
)
from probe_engine.catalogue.entry import Entry

ENTRIES: dict[str, Entry] = {
    entry.code: entry
    for family in (environment, checkpoint, adapter, optimizer, gradient, rollouts, statistics, run)
    for entry in family.ENTRIES
}

__all__ = ["ENTRIES", "Entry"]
