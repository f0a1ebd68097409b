"""Bad inputs: a way to damage a run, and what must be said of it."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import checkpoints
import msgspec

from probe_engine import probe
from probe_engine.report import Report, encode

PROMPTS, RESPONSES = 8, 3
"""Of the runs that are damaged."""
Options = dict[str, Any] | None
Copy = Callable[[checkpoints.Kind], Path]
"""Copies a healthy run of a kind; returns the copy's checkpoint."""


@dataclass(frozen=True)
class Case:
    """A way to damage a run, and what must be said of it."""

    damage: Callable[[Path], Options]
    """Takes the checkpoint; may return options to probe it with."""
    code: str
    status: str
    exit_code: int
    facts: tuple[str, ...]
    """What the message must name: what was expected, what came, where."""
    units: int = PROMPTS
    """Prompts that are left and measured."""
    kind: checkpoints.Kind = "full"
    beside: frozenset[str] = frozenset()
    """Codes that fail as a consequence."""

    def holds(self, copy: Copy) -> None:
        """The damage is named with its facts, and what can be computed is computed."""
        checkpoint = copy(self.kind)
        options = self.damage(checkpoint) or {}
        report = probe(checkpoint, device="cpu", **options)

        assert [f.code for f in report.findings if f.status == "crash" or f.code == "RUN001"] == []
        found = [f for f in report.findings if (f.code, f.status) == (self.code, self.status)]
        assert found, [(f.code, f.status, f.message) for f in report.findings if f.status != "ok"]
        for fact in self.facts:
            assert fact in found[0].message
        assert found[0].remedy.text
        assert report.run.exit_code == self.exit_code

        failed = {f.code for f in report.findings if f.status == "fail"}
        assert failed == self.beside | ({self.code} if self.status == "fail" else set())
        assert len(report.units) == self.units
        assert (report.run.status == "complete") == (self.units > 0)
        assert (report.verdict is not None) == (self.units > 0)
        assert (report.estimates.u_statistic is not None) == (self.units > 0)
        assert msgspec.json.decode(encode(report), type=Report).run == report.run


def cut(name: str) -> Callable[[Path], None]:
    def damage(checkpoint: Path) -> None:
        data = (checkpoint / name).read_bytes()
        (checkpoint / name).write_bytes(data[: len(data) // 2])

    return damage


def pipe(name: str) -> Callable[[Path], None]:
    """A named pipe: reading it would wait for a writer for ever."""

    def damage(checkpoint: Path) -> None:
        (checkpoint / name).unlink(missing_ok=True)
        os.mkfifo(checkpoint / name)

    return damage
