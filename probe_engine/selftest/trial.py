"""A trial: run one injection and see whether its code fired, and nothing else."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from probe_engine.demo.build import one_thread, quiet
from probe_engine.execution import FIRED
from probe_engine.report import Report
from probe_engine.selftest.injection import Injection
from probe_engine.selftest.injections import INJECTIONS
from probe_engine.selftest.lab import Lab


@dataclass(frozen=True)
class Trial:
    """A row of the self-test's table."""

    injection: Injection
    roots: tuple[str, ...]
    """Codes that fired and stand for themselves, in the order of the stream."""
    folded: tuple[str, ...]
    """Codes that fired as consequences of these."""
    seconds: float
    error: str = ""
    """What the injection itself broke on; empty where it ran."""

    @property
    def named(self) -> bool:
        """Whether the fault's code fired, and no other root cause."""
        # What by its nature follows from another fault is folded under it, where the injection says so.
        fired = (*self.roots, *self.folded) if self.injection.besides else self.roots
        return self.injection.code in fired and not self.besides

    @property
    def besides(self) -> tuple[str, ...]:
        """Root causes that the injection does not account for."""
        known = {self.injection.code, *self.injection.besides}
        return tuple(code for code in self.roots if code not in known)


def selftest(narrate: Callable[[str], None] = lambda _: None) -> Iterator[Trial]:
    """Every injection in turn, on a lab that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="probe-tui-") as folder, one_thread(), quiet():
        lab = Lab(Path(folder) / "lab", narrate)
        for injection in INJECTIONS:
            yield trial(injection, lab)


def trial(injection: Injection, lab: Lab) -> Trial:
    """Injects one fault and reads the report."""
    began = time.monotonic()
    try:
        report = injection.inject(lab)
    except Exception as error:  # noqa: BLE001 - one injection that breaks must not hide the others
        return Trial(injection, (), (), time.monotonic() - began, f"{type(error).__name__}: {error}")
    roots, folded = fired(report, injection.code)
    return Trial(injection, roots, folded, time.monotonic() - began)


def fired(report: Report, expected: str = "") -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Root causes and consequences of a report, each code once.

    Args:
        report: what a run found.
        expected: a code that counts where it is only `info`: some faults are no more than worth knowing.
    """
    counted = [f for f in report.findings if f.status in FIRED or (f.code == expected and f.status == "info")]
    roots = dict.fromkeys(f.code for f in counted if not f.cause)
    folded = dict.fromkeys(f.code for f in counted if f.cause and f.code not in roots)
    return tuple(roots), tuple(folded)
