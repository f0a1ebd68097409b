"""The zero-cost baselines."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from probe_engine.estimators.baselines import covariance, discriminant
from probe_engine.estimators.token_statistics import token_statistics


def test_covariance_is_minus_the_covariance_over_tokens():
    rng = np.random.default_rng(0)
    logps, advantages = -rng.random(50), rng.normal(size=50)
    expected = -np.cov(logps, advantages, bias=True)[0, 1]
    parts = covariance(torch.tensor(logps), torch.tensor(advantages))
    assert float(parts.sum()) == pytest.approx(expected)
    products = (advantages - advantages.mean()) * (logps - logps.mean())
    np.testing.assert_allclose(parts, -products / 50)


def test_rewarding_likely_tokens_predicts_that_entropy_falls():
    assert (covariance(torch.tensor([-0.1, -3.0]), torch.tensor([1.0, -1.0])) < 0).all()
    assert (covariance(torch.tensor([-0.1, -3.0]), torch.tensor([-1.0, 1.0])) > 0).all()


def test_the_discriminant_is_centred_under_the_policy():
    rng = np.random.default_rng(1)
    logits, sampled = rng.normal(size=(40, 6)), rng.integers(6, size=40)
    advantages = rng.normal(size=40)
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    S = p * (np.log(p) - (p * np.log(p)).sum(1, keepdims=True))
    expected = -advantages * (S[np.arange(40), sampled] - (p * S).sum(1)) / 40
    statistics = token_statistics(torch.tensor(logits), torch.tensor(sampled))
    np.testing.assert_allclose(discriminant(statistics, torch.tensor(advantages)), expected, atol=1e-15)


def test_the_discriminant_agrees_with_the_step_on_one_softmax():
    """Of a single softmax, its expectation is the entropy's derivative along the policy gradient."""
    logits = torch.tensor([1.0, 0.0, -0.5, -2.0], dtype=torch.float64, requires_grad=True)
    advantages = torch.tensor([1.0, -0.3, 0.2, 0.5], dtype=torch.float64)
    p = logits.softmax(-1)
    (by_entropy,) = torch.autograd.grad(-(p * p.log()).sum(), logits, retain_graph=True)
    (by_objective,) = torch.autograd.grad((p * advantages).sum(), logits)
    p = p.detach()
    statistics = token_statistics(logits.detach().repeat(4, 1), torch.arange(4))
    # Each token once, weighted by its probability: a mean over four tokens becomes the expectation.
    predicted = discriminant(statistics, 4 * p * (advantages - float(p @ advantages)))
    assert float(predicted.sum()) == pytest.approx(float(by_entropy @ by_objective))
