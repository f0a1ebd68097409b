"""Exactness of the two gradients' weights on the enumerable model."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from oracles.enumeration import Enumerable

from probe_engine.estimators.entropy import (
    length_weights,
    loo_coefficients,
    loss_weights,
    x_weights,
    y_weights,
)

WEIGHTINGS = ("dr_grpo", "sequence", "per_token")


@pytest.fixture(scope="module")
def model() -> Enumerable:
    return Enumerable(vocabulary=3, max_length=3, contexts=2)


def expected_x(model: Enumerable, weights, lam, context: int, G: int) -> torch.Tensor:
    """E[Σ_g weights_g·∇S_g] over all G-tuples of responses."""
    total = torch.zeros_like(model.theta)
    for responses in product(range(len(model.listed)), repeat=G):
        y = list(responses)
        chance = model.probabilities[context, y].prod()
        total += chance * (weights(model.S[context, y], lam[y]) @ model.scores[context, y])
    return total


def test_the_listed_sequences_are_all_there_are(model):
    torch.testing.assert_close(model.probabilities.sum(dim=1), torch.ones(2, dtype=torch.float64))


@pytest.mark.parametrize("weighting", WEIGHTINGS)
@pytest.mark.parametrize("G", [2, 3])
def test_expected_x_is_the_entropy_gradient(model, weighting, G):
    lam = length_weights(model.lengths, weighting, model.max_length)
    error = expected_x(model, x_weights, lam, 0, G) - model.entropy_gradient(lam)[0]
    assert error.abs().max() < 1e-10


@pytest.mark.parametrize(("weighting", "exact"), [("sequence", True), ("per_token", False)])
def test_without_plus_one_only_constant_weights_are_exact(model, weighting, exact):
    def without_plus_one(S, lam):
        a = S * lam
        return -(a - a.flip(0)) / 2

    lam = length_weights(model.lengths, weighting, model.max_length)
    gradient = model.entropy_gradient(lam)[0]
    miss = (expected_x(model, without_plus_one, lam, 0, 2) - gradient).norm() / gradient.norm()
    assert (miss < 1e-10) if exact else (miss > 0.05)


@pytest.mark.parametrize("loss_type", ["dr_grpo", "grpo", "dapo"])
def test_expected_y_is_the_policy_gradient(model, loss_type):
    kappa = loss_weights(model.lengths, loss_type, model.max_length, mean_length=2.5)
    total = torch.zeros_like(model.theta)
    for responses in product(range(len(model.listed)), repeat=2):
        y = list(responses)
        r = model.rewards[1, y]
        weights = y_weights(r - r.flip(0), kappa[y])
        total += model.probabilities[1, y].prod() * (weights @ model.scores[1, y])
    assert (total - model.expected_y(kappa)[1]).abs().max() < 1e-10


def test_length_weights():
    lengths = torch.tensor([1, 4])
    assert length_weights(lengths, "dr_grpo", 8).tolist() == [1 / 8, 1 / 8]
    assert length_weights(lengths, "sequence", 8).tolist() == [1, 1]
    assert length_weights(lengths, "per_token", 8).tolist() == [1, 1 / 4]
    assert loss_weights(lengths, "dr_grpo", 8, 2.5).tolist() == [1 / 8, 1 / 8]
    assert loss_weights(lengths, "grpo", 8, 2.5).tolist() == [1, 1 / 4]
    assert loss_weights(lengths, "dapo", 8, 2.5).tolist() == [1 / 2.5, 1 / 2.5]
    assert loss_weights(lengths, "bnpo", 8, 2.5).tolist() == [1 / 2.5, 1 / 2.5]


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match=r"weighting: expected .* got 'token'"):
        length_weights(torch.tensor([1]), "token", 8)
    with pytest.raises(ValueError, match=r"loss type: expected .* got 'ppo'"):
        loss_weights(torch.tensor([1]), "ppo", 8, 1.0)


def test_coefficients_carry_no_graph():
    S = torch.tensor([-1.0, -2.0, -4.0], requires_grad=True)
    c = loo_coefficients(S, torch.ones(3))
    assert not c.requires_grad
    torch.testing.assert_close(c, torch.tensor([2.0, 0.5, -2.5], dtype=torch.float64))


def test_equal_responses_have_coefficients_of_exactly_0():
    assert not loo_coefficients(torch.full((3,), -0.1), torch.full((3,), 0.3)).any()


def test_one_response_has_no_leave_one_out_mean():
    with pytest.raises(ValueError, match="2 responses or more"):
        loo_coefficients(torch.tensor([-1.0]), torch.tensor([1.0]))
