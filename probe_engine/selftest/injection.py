"""An injection: one fault of the catalogue, made on purpose on a healthy tiny run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from probe_engine.report import Report
from probe_engine.selftest.lab import Lab


@dataclass(frozen=True)
class Injection:
    """Proves that a finding is found: exactly its code fires, as a root cause."""

    code: str
    fault: str
    """What is done, in a few words: the row of the self-test's table."""
    inject: Callable[[Lab], Report]
    """Spoils its own copy of the healthy run and examines it."""
    besides: tuple[str, ...] = ()
    """Other root causes that are true of this fault too, where the one can't be had without the other."""
