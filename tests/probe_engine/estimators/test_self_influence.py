"""Self-influence: its value by hand, its error by the spread over drawn units."""

from __future__ import annotations

import math

import pytest
import torch

from probe_engine.estimators.self_influence import self_influence


def test_it_is_the_difference_of_the_two_means() -> None:
    same = torch.tensor([1.0, 2.0, 4.0, 5.0, 9.0], dtype=torch.float64)
    held_out, evaluating = torch.tensor([0.5, 1.5], dtype=torch.float64), torch.tensor([0, 1, 0, 1, 0]).bool()
    value, se = self_influence(same, held_out, evaluating)
    assert value == pytest.approx(float(same.mean() - held_out.mean()))
    # E: 0.4·d − d' = (0.3, 0.5); U: 0.6·d = (0.6, 2.4, 5.4).
    assert se == pytest.approx(math.sqrt(0.02 / 2 + 5.88 / 3))


def test_one_unit_of_a_role_has_no_error() -> None:
    value, se = self_influence(torch.tensor([1.0, 3.0]), torch.tensor([0.5]), torch.tensor([True, False]))
    assert value == pytest.approx(1.5)
    assert se is None


def test_its_error_is_its_spread() -> None:
    """A unit's two changes go together, as they do where both steps are much the same."""
    generator = torch.Generator().manual_seed(0)
    evaluating = torch.arange(12) < 5
    found, claimed = [], []
    for _ in range(2000):
        of_unit, apart = torch.randn(2, 12, generator=generator, dtype=torch.float64)
        value, se = self_influence(of_unit + 0.3, (of_unit + 0.3 * apart)[evaluating], evaluating)
        found.append(value)
        claimed.append(se)
    spread = torch.tensor(found).std()
    assert float(torch.tensor(claimed).square().mean().sqrt() / spread) == pytest.approx(1, abs=0.05)
    assert float(torch.tensor(found).mean()) == pytest.approx(0.3, abs=4 * float(spread) / math.sqrt(2000))
