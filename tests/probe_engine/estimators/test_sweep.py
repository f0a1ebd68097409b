"""The step sweep against the enumerable model: its points, its curvature, and where first order ends."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial

import pytest
import torch
from oracles.enumeration import Enumerable
from torch import Tensor

from probe_engine.checks import statistics as checks
from probe_engine.estimators.entropy import length_weights
from probe_engine.estimators.importance import matched
from probe_engine.estimators.rescored import Samples
from probe_engine.estimators.sweep import SCALES, Reach, curvature, linear_range, sweep_of

MODEL = Enumerable()
LAM = length_weights(MODEL.lengths, "dr_grpo", MODEL.max_length)
KAPPA = torch.full((len(MODEL.listed),), 1 / MODEL.max_length, dtype=torch.float64)
DIRECTION = MODEL.preconditioner * MODEL.expected_y(KAPPA).mean(0)


swept = partial(sweep_of, "adamw", "score")


def samples(S: Tensor, S_plus: Tensor, lam: Tensor) -> Samples:
    """B units of one prompt with G responses each; arguments [B, G]."""
    B, G = S.shape
    unit = torch.arange(B).repeat_interleave(G)
    weight = torch.full((B * G,), 1 / (B * G), dtype=torch.float64)
    return Samples(S.flatten(), S_plus.flatten(), lam.flatten(), weight, unit, unit)


def reaches(step: Tensor, batches: int, B: int, seed: int = 0) -> list[list[Reach]]:
    """Of each of many batches, at all scales."""
    draw = MODEL.draw(batches, B, 4, seed)
    S, lam = MODEL.of(MODEL.S, draw), LAM[draw.sequences]
    first = MODEL.x(draw, LAM) @ step
    after = {k: MODEL.of(MODEL.log_probs(MODEL.theta + k * step), draw) for k in SCALES}
    return [
        [Reach(k, matched(samples(S[r], after[k][r], lam[r])), first[r]) for k in SCALES]
        for r in range(batches)
    ]


def departure(step: Tensor, k: float) -> float:
    """H(θ + kΔθ) − H(θ) less its first order, exactly."""
    slope = float(MODEL.entropy_gradient(LAM).mean(0) @ step)
    return MODEL.change(LAM, k * step) - k * slope


def test_points_and_curvature_are_unbiased() -> None:
    step, batches = 3 * DIRECTION, 200
    sweeps = [swept(r) for r in reaches(step, batches, B=16)]
    for index, k in enumerate(SCALES):
        found = torch.tensor([s.points[index].departure for s in sweeps], dtype=torch.float64)
        assert abs(found.mean() - departure(step, k)) < 4 * found.std() / math.sqrt(batches)
    second = (MODEL.change(LAM, 1e-3 * step) + MODEL.change(LAM, -1e-3 * step)) / 2e-6
    found = torch.tensor([s.curvature for s in sweeps], dtype=torch.float64)
    assert abs(found.mean() - second) < 4 * found.std() / math.sqrt(batches)
    claimed = torch.tensor([s.curvature_se for s in sweeps]).square().mean().sqrt()
    assert claimed == pytest.approx(float(found.std()), rel=0.15)


def test_the_departure_does_not_share_the_noise_of_the_change() -> None:
    """Its error is that of the curvature alone: it shrinks with the square of the scale."""
    (sweep,) = map(swept, reaches(0.3 * DIRECTION, 1, B=64))
    quarter, whole = sweep.points[0], sweep.points[2]
    assert quarter.departure_se == pytest.approx(whole.departure_se / 16, rel=0.1)
    assert quarter.se == pytest.approx(whole.se / 4, rel=0.1)
    assert whole.departure_se < 0.1 * whole.se


def test_the_linear_range_ends_where_the_enumerated_change_bends() -> None:
    """With so many responses nothing but the tenth of δH₁ is allowed."""
    step = 8 * DIRECTION
    (batch,) = reaches(step, 1, B=20_000)
    slope = float(MODEL.entropy_gradient(LAM).mean(0) @ step)
    k = torch.linspace(0.01, 2, 400)
    bent = next(float(x) for x in k if abs(departure(step, float(x))) > 0.1 * float(x) * abs(slope))
    assert 0.2 < bent < 1
    sweep = swept(batch)
    assert sweep.linear_range == pytest.approx(bent, abs=0.05)
    assert checks.first_order(sweep).status == "warn"
    assert f"{sweep.linear_range:.2g} of this step" in checks.first_order(sweep).message


def test_a_short_step_is_linear_throughout() -> None:
    (sweep,) = map(swept, reaches(0.1 * DIRECTION, 1, B=32))
    assert sweep.linear_range == 2
    assert checks.first_order(sweep).status == "ok"


def by_hand(*departures: float, first: float = 1.0, spread: float = 0.0, ess: float = 0.9) -> list[Reach]:
    """Reaches of four units whose mean departure at each scale is given."""
    around = spread * torch.tensor([-1.0, 1.0, -1.0, 1.0], dtype=torch.float64)
    template = matched(samples(torch.zeros(4, 2), torch.zeros(4, 2), torch.ones(4, 2)))
    one = torch.full((4,), first, dtype=torch.float64)
    return [
        Reach(k, replace(template, d_units=k * one + d + around, ess=ess * template.n), one)
        for k, d in zip(SCALES, departures, strict=True)
    ]


@pytest.mark.parametrize(
    ("departures", "changes", "expected"),
    [
        ([0.2 * k * k for k in SCALES], {}, 0.5),
        ([0.04 * k * k for k in SCALES], {}, 2.0),
        ([0.1 * k * k for k in SCALES], {}, 1.0),
        ([-0.2 * k * k for k in SCALES], {"first": -1.0}, 0.5),
        ([0.2 * k * k for k in SCALES], {"ess": 0.2}, None),
        ([0.2 * k * k for k in SCALES], {"spread": 1.0}, 2.0),
        ([math.nan] * 4, {}, None),
    ],
    ids=["bends at a half", "holds", "at the border", "falls", "no ESS", "noise", "nan"],
)
def test_linear_range_by_hand(departures, changes, expected) -> None:
    found = swept(by_hand(*departures, **changes)).linear_range
    assert found is None if expected is None else found == pytest.approx(expected)


def test_scales_whose_weights_degenerated_are_left_out() -> None:
    kept, lost = by_hand(*(0.05 * k * k for k in SCALES)), by_hand(*(9.0 for _ in SCALES), ess=0.1)
    sweep = swept([*kept[:2], *lost[2:]])
    assert sweep.linear_range == 0.5
    assert sweep.curvature == pytest.approx(0.05)
    assert checks.first_order(sweep).status == "skip"
    assert "STAT001" in checks.first_order(sweep).message


def test_curvature_is_that_of_a_cubic() -> None:
    fitted = curvature(by_hand(*(0.7 * k**2 - 0.2 * k**3 for k in SCALES)))
    torch.testing.assert_close(fitted, torch.full((4,), 0.7, dtype=torch.float64))
    assert curvature(by_hand(0.1, 0.1, 0.1, 0.1)[:1]) is None


def test_no_first_order_at_all_ends_at_once() -> None:
    assert linear_range(by_hand(0.1, 0.2, 0.3, 0.4, first=0.0)) == 0.0
