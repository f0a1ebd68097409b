"""Every fault of the catalogue, injected, is named; the healthy run gives no alarm."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from probe_engine.api import doctor, probe
from probe_engine.report import Report
from probe_engine.selftest.injection import Injection
from probe_engine.selftest.injections import INJECTIONS
from probe_engine.selftest.lab import Lab
from probe_engine.selftest.trial import fired, trial


@pytest.mark.parametrize("injection", INJECTIONS, ids=lambda i: f"{i.code}: {i.fault}")
def test_an_injected_fault_is_named_and_no_other(injection: Injection, lab: Lab) -> None:
    row = trial(injection, lab)
    assert row.named, f"roots {row.roots}, folded {row.folded} {row.error}"


def on_disk(lab: Lab) -> Report:
    return probe(lab.checkpoint(), device="cpu")


def live(lab: Lab) -> Report:
    healthy = lab.objects()
    return probe(healthy.model, optimizer=healthy.optimizer, batch=healthy.batch, device="cpu")


def without_a_batch(lab: Lab) -> Report:
    healthy = lab.objects()
    return doctor(healthy.model, optimizer=healthy.optimizer, device="cpu")


@pytest.mark.parametrize("examine", [on_disk, live, without_a_batch])
def test_the_healthy_run_gives_no_alarm(examine: Callable[[Lab], Report], lab: Lab) -> None:
    report = examine(lab)
    assert report.run.status == "complete"
    assert fired(report) == ((), ())
