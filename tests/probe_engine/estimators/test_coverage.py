"""Bias and coverage of δH₁'s intervals, against the enumerable model's population value."""

from __future__ import annotations

import math
from functools import cache

import pytest
import torch
from oracles.enumeration import Enumerable
from oracles.pairs import dot_products

from probe_engine.estimators.entropy import length_weights, loss_weights
from probe_engine.estimators.intervals import t_interval
from probe_engine.estimators.split import split_estimate
from probe_engine.estimators.ustatistics import row_means, u_statistic
from probe_engine.report import SplitEstimate, UStatistic

MODEL = Enumerable()
G, BATCHES, ETA = 4, 1500, 0.1
LAM = length_weights(MODEL.lengths, "dr_grpo", MODEL.max_length)
KAPPA = loss_weights(MODEL.lengths, "grpo", MODEL.max_length, mean_length=2.0)
SIZES = (8, 16, 32)


@cache
def vectors(B: int) -> tuple[torch.Tensor, torch.Tensor]:
    """X and P Y of many batches, each [BATCHES, B, P]."""
    draw = MODEL.draw(BATCHES, B, G, seed=B)
    return MODEL.x(draw, LAM), MODEL.preconditioner * MODEL.y(draw, KAPPA)


@cache
def u_statistics(B: int) -> list[UStatistic]:
    dots = zip(*dot_products(*vectors(B)), strict=True)
    return [u_statistic(row_means(*row), ETA) for row in dots]


@cache
def splits(B: int) -> list[SplitEstimate]:
    """The first half evaluates, the second updates."""
    X, PY = vectors(B)
    E, U = slice(None, B // 2), slice(B // 2, None)
    s = torch.einsum("rbp,rp->rb", X[:, E], PY[:, U].mean(1))
    t = torch.einsum("rp,rbp->rb", X[:, E].mean(1), PY[:, U])
    return [split_estimate(*row, ETA) for row in zip(s, t, strict=True)]


def covered(intervals: list[tuple[float, float] | None]) -> float:
    """Share of the intervals that hold the population value; none at all (every Y_n is 0) doesn't hold it."""
    truth = MODEL.delta_h1(LAM, KAPPA, ETA)
    return sum(i is not None and i[0] <= truth <= i[1] for i in intervals) / len(intervals)


def test_the_oracle_is_no_trivial_one():
    assert len(MODEL.listed) == 40
    assert abs(MODEL.delta_h1(LAM, KAPPA, ETA)) > 1e-4


def test_the_population_value_is_the_slope_of_the_exact_change():
    direction = MODEL.preconditioner * MODEL.expected_y(KAPPA).mean(0)
    slope = (MODEL.change(LAM, 1e-5 * direction) - MODEL.change(LAM, -1e-5 * direction)) / 2e-5
    assert MODEL.delta_h1(LAM, KAPPA, 1.0) == pytest.approx(slope, rel=1e-6)


@pytest.mark.parametrize("estimates", [u_statistics, splits])
@pytest.mark.parametrize("B", SIZES)
def test_estimates_are_unbiased(estimates, B):
    values = torch.tensor([e.delta_h1 for e in estimates(B)], dtype=torch.float64)
    error = values.mean() - MODEL.delta_h1(LAM, KAPPA, ETA)
    assert abs(error) < 4 * values.std() / math.sqrt(BATCHES)


@pytest.mark.parametrize("B", SIZES)
def test_jackknife_intervals_cover(B):
    assert 0.91 <= covered([e.ci95 for e in u_statistics(B)]) <= 0.98


@pytest.mark.parametrize("B", SIZES)
def test_split_intervals_cover_and_need_both_variances(B):
    both = covered([e.ci95 for e in splits(B)])
    assert 0.91 <= both <= 0.98
    conditional = [t_interval(e.delta_h1, e.se_conditional, e.B_E - 1) for e in splits(B)]
    assert covered(conditional) < both - 0.03
