"""The covariance baseline."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from probe_engine.estimators.baselines import covariance


def test_covariance_is_minus_the_covariance_over_tokens():
    rng = np.random.default_rng(0)
    logps, advantages = -rng.random(50), rng.normal(size=50)
    expected = -np.cov(logps, advantages, bias=True)[0, 1]
    assert covariance(torch.tensor(logps), torch.tensor(advantages)) == pytest.approx(expected)


def test_rewarding_likely_tokens_predicts_that_entropy_falls():
    assert covariance(torch.tensor([-0.1, -3.0]), torch.tensor([1.0, -1.0])) < 0
    assert covariance(torch.tensor([-0.1, -3.0]), torch.tensor([-1.0, 1.0])) > 0
