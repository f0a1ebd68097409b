"""Spearman's rank correlation."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr

from probe_engine.estimators.ranks import centred_ranks, spearman

PAIRS = st.lists(st.tuples(st.integers(-4, 4), st.integers(-4, 4)), min_size=3, max_size=12)
"""Few values, so that many are tied."""


def counted_rank(values: list[float], value: float) -> float:
    """Mean place of a value among all, counted from 1."""
    return sum(v < value for v in values) + (values.count(value) + 1) / 2


def defined(a: list[float], b: list[float]) -> float | None:
    """Pearson's correlation of the ranks, by its definition."""
    x, y = [counted_rank(a, v) for v in a], [counted_rank(b, v) for v in b]
    mean = (len(a) + 1) / 2
    covariance = sum((p - mean) * (q - mean) for p, q in zip(x, y, strict=True))
    spread = math.sqrt(sum((p - mean) ** 2 for p in x) * sum((q - mean) ** 2 for q in y))
    return covariance / spread if spread else None


def of(a: list[float], b: list[float]) -> float | None:
    return spearman(torch.tensor(a, dtype=torch.float64), torch.tensor(b, dtype=torch.float64))


@given(PAIRS)
def test_it_is_the_correlation_of_counted_ranks(pairs: list[tuple[int, int]]) -> None:
    a, b = ([float(pair[side]) for pair in pairs] for side in (0, 1))
    expected = defined(a, b)
    assert of(a, b) == (None if expected is None else pytest.approx(expected, abs=1e-12))


@given(PAIRS)
def test_only_the_order_counts_and_it_stays_within_one(pairs: list[tuple[int, int]]) -> None:
    a, b = ([float(pair[side]) for pair in pairs] for side in (0, 1))
    found = of(a, b)
    assert of([math.exp(v) for v in a], [v**3 for v in b]) == found
    assert of(b, a) == found
    assert found is None or -1 <= found <= 1


def test_scipy_says_the_same_without_ties() -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 50, generator=generator)
    assert spearman(a, a + b) == pytest.approx(spearmanr(a, a + b).statistic)


def test_equal_and_opposite_orders_are_the_ends() -> None:
    assert of([1, 2, 3], [10, 20, 21]) == pytest.approx(1)
    assert of([1, 2, 3], [5, 4, -9]) == pytest.approx(-1)


def test_too_few_pairs_and_a_side_that_is_all_the_same_say_nothing() -> None:
    assert of([1, 2], [1, 2]) is None
    assert of([1, 1, 1], [1, 2, 3]) is None
    assert of([1, 2, 3], [0.0, -0.0, 0.0]) is None
    assert of([], []) is None


@pytest.mark.parametrize("spoilt", [math.nan, math.inf, -math.inf])
def test_pairs_that_are_not_finite_are_left_out(spoilt: float) -> None:
    a, b = [3.0, 1.0, 2.0, 5.0], [1.0, 2.0, 0.0, 7.0]
    assert of([*a, spoilt, 9.0], [*b, 1.0, spoilt]) == of(a, b)
    assert of([*a[:2], spoilt], b[:3]) is None


def test_the_ranks_have_unit_length_about_their_mean() -> None:
    ranks = centred_ranks(torch.tensor([4.0, 4.0, -1.0, 7.0]))
    assert ranks.tolist() == pytest.approx([0, 0, -1 / math.sqrt(4.5) * 1.5, 1.5 / math.sqrt(4.5)])
    assert centred_ranks(torch.tensor([1.0, math.nan])).tolist() == [0, 0]
