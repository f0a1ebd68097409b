"""The optimizer's own next step: its prediction, error and measurement against torch's, one by one."""

from __future__ import annotations

import copy
import math
import statistics
from collections.abc import Callable
from typing import Any

import pytest
import tiny
import torch
from oracles.decisions import change_of_a_prompt
from oracles.twin import Prompt, Twin
from torch import Tensor, nn

from probe_engine import probe
from probe_engine.estimators.verdict import driver
from probe_engine.report import RealizedRow, Report
from probe_engine.types import Batch

L_MAX = 7
LR = 1e-3


def model() -> nn.Module:
    return tiny.cast(tiny.with_lora(tiny.model("llama")), torch.float64)


def optimizer(of: nn.Module) -> torch.optim.AdamW:
    built = tiny.optimizer(of, lr=LR)
    built.param_groups[0]["weight_decay"] = 0.3
    return built


def trainable(of: nn.Module) -> list[nn.Parameter]:
    return [p for p in of.parameters() if p.requires_grad]


def twin_of(of: nn.Module, batch: Batch) -> Twin:
    prompts = Prompt.all_of(batch)
    count = sum(p.numel() for p in trainable(of))
    ones = torch.ones(count, dtype=torch.float64)
    return Twin(of, trainable(of), ones, LR, L_MAX, "dr_grpo", "dr_grpo", prompts).measure()


def stepped(ascent: Tensor) -> tuple[nn.Module, Tensor]:
    """A copy of the model after torch's own step on −Ȳ, and Δθ, flat."""
    fresh = model()
    taken, parameters = optimizer(fresh), trainable(fresh)
    before = torch.cat([p.detach().flatten() for p in parameters])
    for p, part in zip(parameters, ascent.split([p.numel() for p in parameters]), strict=True):
        p.grad = -part.reshape(p.shape).clone()
    taken.step()
    return fresh, torch.cat([p.detach().flatten() for p in parameters]) - before


def mean(vectors: list[Tensor]) -> Tensor:
    return torch.stack(vectors).mean(0)


@pytest.fixture(scope="module")
def batch() -> Batch:
    return tiny.batch(max_length=L_MAX)


@pytest.fixture(scope="module")
def twin(batch: Batch) -> Twin:
    return twin_of(model(), batch)


@pytest.mark.parametrize("how", [{}, {"memory_budget": "1B"}, {"method": "fused"}], ids=str)
def test_the_estimate_and_its_error_are_those_of_the_units_one_by_one(
    batch: Batch, twin: Twin, how: dict[str, Any]
) -> None:
    live = model()
    report = probe(live, optimizer=optimizer(live), batch=batch, dtype="float64", device="cpu", **how)
    ours = report.estimates.adamw
    assert ours is not None

    e, u = twin.of("E"), twin.of("U")
    y_bar = mean([q.Y for q in u])
    _, delta = stepped(y_bar)
    x = [float(q.X @ delta) for q in e]
    x_bar, epsilon = mean([q.X for q in e]), 1e-5

    def slope(direction: Tensor) -> float:
        ahead, behind = (float(x_bar @ stepped(y_bar + s * epsilon * direction)[1]) for s in (1, -1))
        return (ahead - behind) / (2 * epsilon)

    y = [slope(q.Y) for q in u]
    se = math.sqrt(statistics.variance(x) / len(x) + statistics.variance(y) / len(y))
    assert ours.delta_h1 == pytest.approx(statistics.mean(x), rel=1e-6)
    assert ours.se == pytest.approx(se, rel=1e-4)
    assert ours.var_u == pytest.approx(statistics.variance(y) / len(y), rel=1e-4)
    assert (ours.B_E, ours.B_U, ours.clip, ours.max_grad_norm) == (len(x), len(y), 1.0, None)
    parts = ours.parts
    assert parts.clipping == 0.0
    whole = math.fsum((parts.gradient, parts.clipping, parts.momentum, parts.weight_decay))
    assert whole == pytest.approx(ours.delta_h1, rel=1e-6)


@pytest.mark.parametrize("pairing", ["held_out", "same_batch"])
def test_what_is_measured_is_the_change_after_torchs_own_step(batch: Batch, twin: Twin, pairing: str) -> None:
    live = model()
    report = probe(live, optimizer=optimizer(live), batch=batch, dtype="float64", device="cpu")
    members = twin.prompts if pairing == "same_batch" else twin.of("E")
    makers = twin.prompts if pairing == "same_batch" else twin.of("U")
    after, delta = stepped(mean([q.Y for q in makers]))
    truth = [change_of_a_prompt(live, after, q.tokens, q.responses, 1 / L_MAX) for q in members]
    row = one(report, "adamw", pairing, "per_decision")
    assert row.delta_h == pytest.approx(statistics.mean(truth), rel=1e-6)
    assert [unit.d for unit in row.units] == pytest.approx(truth, rel=1e-5)
    predicted = float(mean([q.X for q in members]) @ delta)
    assert one(report, "adamw", pairing, "matched").predicted == pytest.approx(predicted, rel=1e-6)


def one(report: Report, *name: str) -> RealizedRow:
    (row,) = [r for r in report.realized if (r.step, r.pairing, r.estimator) == name]
    return row


def judged(report: Report) -> tuple[str, str, str]:
    assert report.verdict is not None
    row = report.verdict.row
    return row.step, row.pairing, row.estimator


def probed(**options: Any) -> Report:
    live = model()
    handed = {"optimizer": optimizer(live), "batch": tiny.batch(max_length=L_MAX), "device": "cpu"}
    return probe(live, **(handed | options))


def statuses(report: Report, code: str) -> list[str]:
    return [f.status for f in report.findings if f.code == code]


def test_the_verdict_is_about_the_optimizers_step_and_says_what_drives_it() -> None:
    report = probed()
    assert judged(report) == ("adamw", "held_out", "per_decision")
    assert report.verdict is not None
    predicted = report.estimates.headline.adamw
    assert predicted is not None
    assert report.verdict.predicted == predicted.delta_h1
    assert report.verdict.measured == one(report, "adamw", "held_out", "per_decision").delta_h
    assert "What moves it most is" in report.verdict.reason
    assert report.verdict.reason.endswith(driver(predicted.parts))
    assert statuses(report, "OPT012") == ["info"]
    assert "max_grad_norm" in next(f.message for f in report.findings if f.code == "OPT012")


@pytest.mark.parametrize(
    ("options", "row", "steps"),
    [
        ({"steps": ("preconditioned",)}, ("preconditioned", "held_out", "per_decision"), {"preconditioned"}),
        ({"steps": ("adamw",)}, ("adamw", "held_out", "per_decision"), {"adamw"}),
        (
            {"batch": tiny.batch(weighting="per_token", max_length=L_MAX)},
            ("adamw", "held_out", "matched"),
            {"adamw", "preconditioned"},
        ),
        ({"optimizer": None, "lr": LR}, ("preconditioned", "held_out", "per_decision"), {"preconditioned"}),
    ],
    ids=["preconditioned alone", "adamw alone", "λ by length", "no optimizer"],
)
def test_what_is_judged_is_the_best_row_that_there_is(
    options: dict[str, Any], row: tuple[str, str, str], steps: set[str]
) -> None:
    report = probed(**options)
    assert judged(report) == row
    assert {r.step for r in report.realized} == steps
    assert (report.estimates.adamw is not None) == ("adamw" in steps)
    assert report.sweep is not None
    assert report.self_influence is not None
    assert report.sweep.step == report.self_influence.step == row[0]
    assert report.self_influence.estimator == row[2]
    assert ("per_decision" in {r.estimator for r in report.realized}) == (row[2] == "per_decision")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda o: o.state.clear(), "there is no optimizer state"),
        (lambda o: o.state[o.param_groups[0]["params"][0]]["exp_avg_sq"].view(-1)[0].fill_(-1), "1 of 12"),
        (lambda o: o.param_groups[0]["params"].pop(), "1 of 12"),
    ],
    ids=["no state", "a damaged state", "a parameter that it does not hold"],
)
def test_a_step_that_is_not_known_is_not_taken_and_it_is_said_why(
    spoil: Callable[[torch.optim.Optimizer], Any], said: str
) -> None:
    live = model()
    spoilt = optimizer(live)
    spoil(spoilt)
    report = probe(live, optimizer=spoilt, batch=tiny.batch(max_length=L_MAX), lr=LR, device="cpu")
    assert report.estimates.adamw is None
    assert {r.step for r in report.realized} == {"preconditioned"}
    assert statuses(report, "OPT012") == ["skip"]
    assert said in next(f.message for f in report.findings if f.code == "OPT012")


def test_a_stale_preconditioner_makes_no_verdict_on_the_optimizers_step_unreliable() -> None:
    live = model()
    stale = copy.deepcopy(optimizer(live).state_dict())
    for kept in stale["state"].values():
        kept["exp_avg_sq"] *= 1e-8
    late = optimizer(live)
    late.load_state_dict(stale)
    report = probe(live, optimizer=late, batch=tiny.batch(max_length=L_MAX), lr=1e-6, device="cpu")
    assert statuses(report, "OPT010") == ["fail"]
    assert report.verdict is not None
    assert report.verdict.row.step == "adamw"
    assert report.verdict.status != "unreliable"
