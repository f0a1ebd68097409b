"""The forecast: made before the measurement, compared after it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import cast

import msgspec
import pytest
import tiny
import torch
from torch import nn

from probe_engine import doctor, probe
from probe_engine.environment.peak import watched
from probe_engine.events import AnyEvent, Part, Progress, StageStarted, Units
from probe_engine.execution import execute
from probe_engine.model.unit_gradients import Scored
from probe_engine.report import Report
from probe_engine.spec import resolve
from probe_engine.stages.adopt import LiveObjects
from probe_engine.stages.forecast import beginning
from probe_engine.stages.meter import Meter


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


class Slow:
    """Hands units on after so many seconds each, on a clock of its own."""

    def __init__(self, seconds: Sequence[float], monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.seconds, self.meter = 0.0, seconds, Meter("measure", 1)
        monkeypatch.setattr("probe_engine.stages.forecast.time.perf_counter", lambda: self.now)

    def passes(self, model: nn.Module) -> Iterator[Scored]:
        model(input_ids=torch.zeros(1, 3, dtype=torch.long))
        for number, seconds in enumerate(self.seconds):
            self.now += seconds
            self.meter(10 * number + 1)
            yield cast(Scored, number)


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        ([1.0, 9.0, 9.0], (1.0, 1)),
        ([0.125, 0.125, 0.125, 9.0], (0.25, 11 + 21)),  # the first one is mostly what is done once
        ([0.125, 0.0625], (0.0625, 11)),
        ([0.125], (0.125, 1)),
    ],
)
def test_a_short_first_window_is_not_what_others_take(
    seconds: list[float], expected: tuple[float, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    policy, slow = tiny.policy(tiny.model()), Slow(seconds, monkeypatch)
    begun, passes = beginning(policy, slow.passes(policy.model), slow.meter)
    assert (begun.seconds, begun.tokens) == expected
    assert [cast(int, number) for number in passes] == list(range(len(seconds)))


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
