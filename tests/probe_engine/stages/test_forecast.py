"""The forecast: made before the measurement, compared after it."""

from __future__ import annotations

import msgspec
import pytest
import tiny
import torch

from probe_engine import doctor, probe
from probe_engine.environment.peak import watched
from probe_engine.events import AnyEvent, Part, Progress, StageStarted, Units
from probe_engine.execution import execute
from probe_engine.report import Report
from probe_engine.spec import resolve
from probe_engine.stages.adopt import LiveObjects


def live() -> LiveObjects:
    model = tiny.with_lora(tiny.model())
    return LiveObjects(model, tiny.optimizer(model), tiny.batch())


def run(**options: object) -> tuple[Report, list[AnyEvent]]:
    events: list[AnyEvent] = []
    return execute(resolve({"device": "cpu", **options}), live=live(), sinks=[events.append]), events


@pytest.mark.parametrize("method", ["fused", "loop", "alpha"])
@pytest.mark.parametrize("budget", ["4GiB", "1KiB"])
def test_passes_and_tokens_are_those_of_the_run(method: str, budget: str) -> None:
    report, events = run(method=method, memory_budget=budget)
    assert report.forecast is not None
    assert report.method is not None
    assert report.forecast.method == report.method.name == method
    assert report.method.packed == (method == "fused")
    foreseen = report.forecast.predicted[method]
    assert foreseen.passes == report.method.passes
    counted = {e.stage: e for e in events if isinstance(e, Progress)}
    assert all(e.done == e.total for e in counted.values())
    assert foreseen.tokens == counted["measure"].total + counted["realize"].total


def test_it_is_said_after_the_first_passes_and_again_at_the_end() -> None:
    report, events = run()
    said = [i for i, e in enumerate(events) if isinstance(e, Part) and e.forecast is not None]
    (began,) = (i for i, e in enumerate(events) if isinstance(e, StageStarted) and e.stage == "measure")
    measured = [i for i, e in enumerate(events) if isinstance(e, Units)]
    first, last = said
    assert began < first < measured[0]
    assert measured[-1] < last
    before, after = (events[i].forecast for i in said)  # type: ignore[union-attr]
    assert before is not None
    assert before.measured.seconds is None
    assert after == report.forecast
    assert after is not None
    assert after.measured.seconds == pytest.approx(
        sum(report.timings[stage] for stage in ("measure", "estimate", "realize", "judge"))
    )
    assert after.measured.memory is not None


def test_what_no_clock_has_a_part_in_is_the_same_in_every_run() -> None:
    one, other = (run()[0].forecast for _ in range(2))
    assert one is not None
    assert other is not None
    assert msgspec.to_builtins(one.predicted) == msgspec.to_builtins(other.predicted)


def test_the_cheaper_method_is_foreseen_to_be_cheaper() -> None:
    report, _ = run()
    assert report.forecast is not None
    flops = {name: cost.flops for name, cost in report.forecast.predicted.items()}
    assert flops["fused"] < flops["loop"] < flops["alpha"]


def test_a_plan_measures_nothing() -> None:
    report = execute(resolve({"device": "cpu"}), until="forecast", live=live())
    assert report.run.status == "complete"
    assert report.run.exit_code == 0
    assert report.forecast is not None
    assert report.forecast.measured.seconds is None
    assert not report.units
    assert report.verdict is None
    assert "measure" not in report.timings


def test_the_doctor_forecasts_nothing() -> None:
    objects = live()
    assert doctor(objects.model, optimizer=objects.optimizer, batch=objects.batch).forecast is None


@pytest.mark.parametrize("method", ["fused", "loop"])
def test_checkpointing_changes_no_number_and_is_told(method: str) -> None:
    reports = []
    for checkpointing in (False, True):
        objects = live()
        reports.append(
            probe(
                objects.model,
                optimizer=objects.optimizer,
                batch=objects.batch,
                method=method,
                checkpointing=checkpointing,
                device="cpu",
            )
        )
    plain, recomputed = reports
    assert plain.method is not None
    assert recomputed.method is not None
    assert (plain.method.checkpointed_layers, recomputed.method.checkpointed_layers) == (0, 2)
    assert plain.estimates.u_statistic is not None
    assert recomputed.estimates.u_statistic is not None
    ours, theirs = recomputed.estimates.u_statistic.delta_h1, plain.estimates.u_statistic.delta_h1
    assert ours == pytest.approx(theirs, rel=1e-5)
    assert plain.forecast is not None
    assert recomputed.forecast is not None
    less, more = (r.forecast.predicted[method].memory for r in (recomputed, plain))  # type: ignore[union-attr]
    assert less < more


def test_the_peak_counts_what_was_held_and_let_go() -> None:
    with watched(torch.device("cpu")) as peak:
        held = torch.ones(2**24)
        peak.look()
        del held
        peak.look()
    assert peak.nbytes is not None
    assert peak.nbytes >= 4 * 2**24
