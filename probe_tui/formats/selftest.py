"""The self-test's table: fault, code expected, codes fired, time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from probe_engine.selftest.trial import Trial


def trial_line(row: Trial) -> str:
    """One row: glyph, word, code, the fault, what fired, what was folded under it, seconds."""
    mark = "✓ named " if row.named else "✗ missed" if row.injection.code not in row.roots else "✗ others"
    fired = ", ".join(row.roots) or row.error or "nothing"
    folded = f" (so {', '.join(row.folded)})" if row.folded else ""
    return f"{mark}  {row.injection.code}  {row.injection.fault:<58}  → {fired}{folded}  {row.seconds:.1f} s"


def trials_summary(rows: Sequence[Trial]) -> str:
    """The count at the end."""
    codes = {row.injection.code for row in rows}
    wrong = [row for row in rows if not row.named]
    seconds = sum(row.seconds for row in rows)
    verdict = "each named, and no other" if not wrong else f"{len(wrong)} not named, or not alone"
    again = "".join(f"\n{trial_line(row)}" for row in wrong)
    return f"{again}\n{len(rows)} faults of {len(codes)} codes injected in {seconds:.0f} s: {verdict}"


def trials_json(rows: Sequence[Trial]) -> str:
    """The table as a JSON array."""
    table = [
        {
            "code": row.injection.code,
            "fault": row.injection.fault,
            "named": row.named,
            "fired": row.roots,
            "folded": row.folded,
            "error": row.error,
            "seconds": row.seconds,
        }
        for row in rows
    ]
    return msgspec.json.format(msgspec.json.encode(table), indent=2).decode() + "\n"
