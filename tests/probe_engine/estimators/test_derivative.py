"""The derivative test's arithmetic against the enumerable model, whose gradients are exact."""

from __future__ import annotations

import math

import pytest
import torch
from oracles.enumeration import Enumerable
from torch import Tensor

from probe_engine.estimators.derivative import (
    central_difference,
    confirmed,
    extrapolated,
    factor,
    settled,
)
from probe_engine.estimators.entropy import length_weights
from probe_engine.estimators.rescored import Samples

MODEL = Enumerable()
B, G = 4, 4
DRAW = MODEL.draw(1, B, G, seed=5)


def measured(direction: Tensor, epsilon: float, lam: Tensor) -> Tensor:
    """½( d(+ε) − d(−ε) ) of the drawn responses, by unit."""
    unit = torch.arange(B).repeat_interleave(G)
    S, ahead, behind = (
        MODEL.of(MODEL.log_probs(MODEL.theta + sign * epsilon * direction), DRAW).flatten()
        for sign in (0, 1, -1)
    )
    share = torch.full((B * G,), 1 / (B * G), dtype=torch.float64)
    weights = lam[DRAW.sequences].flatten()
    return central_difference(
        Samples(S, ahead, weights, share, unit, unit), Samples(S, behind, weights, share, unit, unit)
    )


@pytest.mark.parametrize("weighting", ["dr_grpo", "sequence", "per_token"])
@pytest.mark.parametrize("along", ["X̄", "anything"])
def test_the_ratio_is_1_on_any_samples(weighting, along) -> None:
    lam = length_weights(MODEL.lengths, weighting, MODEL.max_length)
    X = MODEL.x(DRAW, lam)[0]
    v = X.mean(0) if along == "X̄" else MODEL.preconditioner
    epsilon = 0.02 / float(v.norm())
    whole, half = (factor(measured(v, e, lam), e * (X @ v)) for e in (epsilon, epsilon / 2))
    assert settled(whole.value, half.value)
    assert abs(extrapolated(whole.value, half.value) - 1) < 1e-6
    assert abs(extrapolated(whole.value, half.value) - 1) < 0.01 * abs(whole.value - 1)
    assert whole.se < 1e-3


def test_a_gradient_that_is_none_is_told_by_its_factor() -> None:
    """A part of θ hidden from the gradient, as a detached norm hides it."""
    lam = length_weights(MODEL.lengths, "dr_grpo", MODEL.max_length)
    X = MODEL.x(DRAW, lam)[0]
    hidden = X.clone()
    hidden[:, :4] *= 0.5
    v = hidden.mean(0)
    epsilon = 0.02 / float(v.norm())
    found = factor(measured(v, epsilon, lam), epsilon * (hidden @ v))
    assert found.value == pytest.approx(float(X.mean(0) @ v) / float(v @ v), rel=1e-3)
    assert abs(found.value - 1) > 0.02


def test_factor_is_a_ratio_estimator() -> None:
    predicted = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    exact = factor(1.1 * predicted, predicted)
    assert (exact.value, exact.se) == (pytest.approx(1.1), pytest.approx(0, abs=1e-12))
    # Residuals 0.1, −0.2, 0.1 have the standard deviation √0.03.
    noisy = factor(predicted + torch.tensor([0.1, -0.2, 0.1], dtype=torch.float64), predicted)
    assert noisy.value == pytest.approx(1)
    assert noisy.se == pytest.approx(math.sqrt(0.03 / 3) / 2)
    assert factor(predicted[:1], predicted[:1]).se is None
    assert math.isnan(factor(predicted, torch.tensor([1.0, -1.0, 0.0], dtype=torch.float64)).value)


@pytest.mark.parametrize(
    ("whole", "half", "expected"),
    [
        (1.002, 1.0005, True),
        (1.0039, 1.001, True),
        (1.0, 1.0031, False),
        (1.12, 1.125, True),
        (1.12, 1.16, False),
        (math.nan, 1.0, False),
    ],
)
def test_settled_at_its_borders(whole, half, expected) -> None:
    assert settled(whole, half) is expected


def test_a_departure_must_stay_as_the_step_shrinks() -> None:
    assert confirmed(0.928, 0.9275)
    assert confirmed(1.12, 1.10)
    assert not confirmed(0.9926, 1.0001)
    assert not confirmed(0.984, 0.9956)
    assert not confirmed(1.0045, 1.067)
