"""Every estimator of ΔĤ against H(θ⁺) − H(θ) by enumeration: Δθ is held fixed, batches are drawn anew."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

import pytest
import torch
from oracles.enumeration import Enumerable
from oracles.moved import Drawn, Moved

from probe_engine.estimators.change import Change
from probe_engine.estimators.importance import matched, psis, snis
from probe_engine.estimators.intervals import t_interval
from probe_engine.estimators.per_decision import per_decision
from probe_engine.estimators.resample import resample
from probe_engine.estimators.weights import degenerate, ess_status

B, G, BATCHES = 16, 4, 500
SMALL = 8.0
"""Times the policy gradient's step: first order is off by a third."""

Estimate = Callable[[Drawn], Change]
ESTIMATORS: dict[str, Estimate] = {
    "per_decision": lambda drawn: per_decision(drawn.samples, drawn.decisions),
    "matched": lambda drawn: matched(drawn.samples),
    "snis": lambda drawn: snis(drawn.samples),
    "psis": lambda drawn: psis(drawn.samples),
    "resample": lambda drawn: resample(drawn.samples, drawn.before, drawn.after),
}
UNBIASED = {"per_decision", "matched", "resample"}
CASES = [
    (name, weighting)
    for weighting in ("dr_grpo", "per_token")
    for name in ESTIMATORS
    if (name, weighting) != ("per_decision", "per_token")
]


def moved(times: float, weighting: str) -> Moved:
    """Along P·E[Y], as a step of the trainer goes."""
    model = Enumerable()
    kappa = torch.full((len(model.listed),), 1 / model.max_length, dtype=torch.float64)
    return Moved(model, times * model.preconditioner * model.expected_y(kappa).mean(0), weighting)


@cache
def batches(times: float, weighting: str) -> tuple[list[Drawn], float]:
    of = moved(times, weighting)
    return list(of.drawn(BATCHES, B, G, seed=1)), of.truth


@cache
def changes(name: str, times: float, weighting: str) -> list[Change]:
    return [ESTIMATORS[name](drawn) for drawn in batches(times, weighting)[0]]


def values(of: list[Change]) -> torch.Tensor:
    return torch.tensor([change.delta_h for change in of], dtype=torch.float64)


def covered(of: list[Change], truth: float) -> float:
    intervals = [t_interval(change.delta_h, change.se, len(change.d_units) - 1) for change in of]
    return sum(low <= truth <= high for low, high in intervals) / len(intervals)


@pytest.mark.parametrize(("name", "weighting"), [case for case in CASES if case[0] in UNBIASED])
def test_unbiased(name: str, weighting: str) -> None:
    found, truth = values(changes(name, SMALL, weighting)), batches(SMALL, weighting)[1]
    assert abs(found.mean() - truth) < 4 * found.std() / math.sqrt(BATCHES)


@pytest.mark.parametrize(("name", "weighting"), [case for case in CASES if case[0] not in UNBIASED])
def test_consistent(name: str, weighting: str) -> None:
    """From a hundred thousand responses it is within 4 of its errors, and those are small."""
    of = moved(SMALL, weighting)
    (drawn,) = of.drawn(1, 25_000, 4, seed=2)
    change = ESTIMATORS[name](drawn)
    assert abs(change.delta_h - of.truth) < 4 * change.se
    assert change.se < 0.25 * abs(of.truth)


@pytest.mark.parametrize(("name", "weighting"), CASES)
def test_its_error_is_its_spread(name: str, weighting: str) -> None:
    found = changes(name, SMALL, weighting)
    claimed = torch.tensor([change.se for change in found]).square().mean().sqrt()
    assert claimed == pytest.approx(float(values(found).std()), rel=0.15)


@pytest.mark.parametrize(("name", "weighting"), CASES)
def test_its_interval_covers(name: str, weighting: str) -> None:
    assert 0.91 <= covered(changes(name, SMALL, weighting), batches(SMALL, weighting)[1]) <= 0.98


@pytest.mark.parametrize("times", [1.0, SMALL])
def test_per_decision_is_the_quietest(times: float) -> None:
    log_w = torch.cat([drawn.samples.log_w for drawn in batches(times, "dr_grpo")[0]])
    assert float(log_w.square().mean().sqrt()) <= 0.5
    spread = {name: float(values(changes(name, times, "dr_grpo")).std()) for name in ESTIMATORS}
    assert min(spread, key=spread.__getitem__) == "per_decision"


class TestAStepTenTimesTooLarge:
    @pytest.fixture(scope="class")
    def drawn(self) -> list[Drawn]:
        return batches(10 * SMALL, "dr_grpo")[0]

    def test_its_weights_degenerate(self, drawn: list[Drawn]) -> None:
        found = [snis(d.samples) for d in drawn]
        assert sum(ess_status(c.ess_fraction) == "fail" for c in found) > 0.99 * BATCHES
        assert all(degenerate(c.ess_fraction, c.khat, c.n) for c in found if c.ess_fraction < 0.3)

    @pytest.mark.parametrize("weighting", ["dr_grpo", "per_token"])
    def test_fresh_responses_cover_the_truth(self, weighting: str) -> None:
        found, truth = changes("resample", 10 * SMALL, weighting), batches(10 * SMALL, weighting)[1]
        assert abs(values(found).mean() - truth) < 4 * values(found).std() / math.sqrt(BATCHES)
        assert 0.91 <= covered(found, truth) <= 0.98
        assert all((c.ess_fraction, c.khat) == (1.0, None) for c in found)

    def test_old_ones_do_not(self) -> None:
        found, truth = changes("snis", 10 * SMALL, "dr_grpo"), batches(10 * SMALL, "dr_grpo")[1]
        assert covered(found, truth) < 0.9


def test_as_many_fresh_responses_as_old_ones() -> None:
    (drawn,) = moved(SMALL, "dr_grpo").drawn(1, 4, 2, seed=3)
    with pytest.raises(ValueError, match="8 old and fresh"):
        resample(drawn.samples, drawn.before, drawn.after[1:])
