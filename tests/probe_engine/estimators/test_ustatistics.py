"""U- and V-statistic against brute force over the vectors."""

from __future__ import annotations

import math

import pytest
import torch
from oracles.pairs import dot_products, jackknife_variance, kernel, u_over_pairs
from scipy.stats import t as student

from probe_engine.estimators.ustatistics import row_means, u_cross, u_statistic, v_statistic

ETA = 0.01


def vectors(B: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    X = torch.randn(B, 5, generator=generator, dtype=torch.float64) + 0.5
    return X, X.roll(1, 1) + torch.randn(B, 5, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("B", [2, 3, 8])
def test_row_means_the_closed_form_and_brute_force_agree(B):
    X, PY = vectors(B)
    dots = dot_products(X, PY)
    brute = u_over_pairs(X, PY)
    assert u_cross(*dots) == pytest.approx(brute, rel=1e-12)
    assert float(row_means(*dots).mean()) == pytest.approx(brute, rel=1e-12)


def test_a_row_mean_is_the_mean_of_its_pairs():
    X, PY = vectors(6)
    expected = [sum(kernel(X, PY, n, m) for m in range(6) if m != n) / 5 for n in range(6)]
    torch.testing.assert_close(row_means(*dot_products(X, PY)), torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("B", [3, 4, 9])
def test_jackknife_equals_refitting(B):
    X, PY = vectors(B)
    result = u_statistic(row_means(*dot_products(X, PY)), ETA)
    assert result.se_jackknife == pytest.approx(ETA * math.sqrt(jackknife_variance(X, PY)), rel=1e-9)
    assert result.se_jackknife / result.se_plugin == pytest.approx((B - 1) / (B - 2), rel=1e-12)


def test_u_statistic_in_numbers():
    X, PY = vectors(7)
    result = u_statistic(row_means(*dot_products(X, PY)), ETA, pairs=X @ PY.T)
    h = torch.tensor([kernel(X, PY, u, v) for u in range(7) for v in range(u)], dtype=torch.float64)
    assert result.B == 7
    assert result.delta_h1 == pytest.approx(-ETA * u_over_pairs(X, PY))
    assert result.zeta2 == pytest.approx(float(h.var()))
    assert result.se_plugin == pytest.approx(ETA * math.sqrt(4 * result.zeta1 / 7))
    half = student.ppf(0.975, 6) * result.se_jackknife
    assert result.ci95 == pytest.approx((result.delta_h1 - half, result.delta_h1 + half))


@pytest.mark.parametrize("with_pairs", [True, False])
def test_prompts_needed_is_the_first_size_that_excludes_0(with_pairs):
    X, PY = vectors(7)
    result = u_statistic(row_means(*dot_products(X, PY)), ETA, pairs=X @ PY.T if with_pairs else None)
    zeta2 = result.zeta2 if with_pairs else 0.0

    def excludes(size: int) -> bool:
        se = math.sqrt(4 * result.zeta1 / size + 2 * zeta2 / (size * (size - 1)))
        return abs(result.u_cross) > student.ppf(0.975, size - 1) * se

    assert result.prompts_needed == next(size for size in range(3, 10**5) if excludes(size))
    assert result.prompts_needed > 3


def test_two_units_have_an_estimate_but_no_error():
    X, PY = vectors(2)
    result = u_statistic(row_means(*dot_products(X, PY)), ETA, pairs=X @ PY.T)
    assert result.u_cross == pytest.approx(kernel(X, PY, 0, 1))
    errors = (result.se_plugin, result.se_jackknife, result.ci95, result.zeta1, result.zeta2)
    assert errors == (None,) * 5
    assert result.prompts_needed is None


def test_an_estimate_of_0_or_nan_needs_no_number_of_prompts():
    assert u_statistic(torch.tensor([-1.0, 0.0, 1.0]), ETA).prompts_needed is None
    nearly = torch.tensor([-1.0, 0.0, 1.0 + 1e-14], dtype=torch.float64)
    assert u_statistic(nearly, ETA).prompts_needed is None
    spoilt = u_statistic(torch.tensor([math.nan, 0.0, 1.0]), ETA)
    assert spoilt.prompts_needed is None
    assert spoilt.ci95 is None


def test_a_learning_rate_of_0_gives_an_interval_of_exactly_0():
    result = u_statistic(torch.tensor([1.0, 2.0, 4.0]), 0.0)
    assert result.delta_h1 == 0
    assert result.ci95 == (0, 0)


def test_one_unit_has_no_pair():
    one = torch.ones(1)
    with pytest.raises(ValueError, match="2 units or more"):
        u_statistic(one, ETA)
    with pytest.raises(ValueError, match="2 units or more"):
        row_means(one, one, one)
    with pytest.raises(ValueError, match="one number a unit"):
        u_cross(one, torch.ones(2), torch.ones(2))


def test_v_statistic_holds_the_diagonal():
    X, PY = vectors(6)
    result = v_statistic(*dot_products(X, PY), ETA)
    mean_x, mean_py = X.mean(0), PY.mean(0)
    projection = torch.stack([0.5 * (X[n] @ mean_py + mean_x @ PY[n]) for n in range(6)])
    assert result.delta_h1 == pytest.approx(ETA * float(mean_x @ mean_py))
    assert result.se == pytest.approx(ETA * math.sqrt(4 * float(projection.var()) / 6))
    half = student.ppf(0.975, 5) * result.se
    assert result.ci95 == pytest.approx((result.delta_h1 - half, result.delta_h1 + half))


def test_v_statistic_of_one_unit_is_its_diagonal():
    X, PY = vectors(1)
    result = v_statistic(*dot_products(X, PY), ETA)
    assert result.delta_h1 == pytest.approx(ETA * float(X[0] @ PY[0]))
    assert result.se is None
    assert result.ci95 is None
