"""What holds for the histogram of any values."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from probe_engine.estimators.histogram import histogram

VALUES = st.lists(st.floats(width=64), max_size=60)
# A busy machine must not fail a test, nor chance.
steady = settings(deadline=None, derandomize=True)
USUAL = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=60)


def of(values: list[float], **options):
    return histogram(torch.tensor(values, dtype=torch.float64), **options)


@steady
@given(VALUES, st.integers(2, 50))
def test_every_value_is_counted_once(values, bins):
    h = of(values, bins=bins)
    assert sum(h.counts) + h.nan + h.underflow + h.overflow == len(values)
    assert h.nan == sum(map(math.isnan, values))
    assert len(h.edges) == len(h.counts) + 1
    assert h.edges == sorted(set(h.edges))


@steady
@given(VALUES)
def test_zero_is_an_edge_and_separates_the_signs(values):
    h = of(values)
    zero = h.edges.index(0.0)
    assert h.underflow + sum(h.counts[:zero]) == sum(v < 0 for v in values)
    assert sum(h.counts[zero:]) + h.overflow == sum(v >= 0 for v in values)


@steady
@given(USUAL, st.integers(2, 50))
def test_bins_are_as_many_as_asked_and_equally_wide(values, bins):
    h = of(values, bins=bins)
    if max(map(abs, values)) > 1e-290:
        assert len(h.counts) == bins
        widths = torch.tensor(h.edges, dtype=torch.float64).diff()
        torch.testing.assert_close(widths, widths.mean().expand(bins))


@steady
@given(USUAL, st.randoms(use_true_random=False))
def test_order_does_not_matter(values, random):
    shuffled = random.sample(values, len(values))
    assert of(values) == of(shuffled)


@steady
@given(USUAL, VALUES)
def test_counts_over_fixed_edges_add_up(values, more):
    h = of(values)
    edges = torch.tensor(h.edges, dtype=torch.float64)
    grown, alone = of(values + more, edges=edges), of(more, edges=edges)
    assert of(values, edges=edges) == h
    assert grown.counts == [a + b for a, b in zip(h.counts, alone.counts, strict=True)]
    assert grown.underflow == h.underflow + alone.underflow
    assert grown.overflow == h.overflow + alone.overflow


@steady
@example(0.0, 1.0, 50)  # 49·(1/49) < 1
@given(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6), st.integers(2, 50))
def test_extreme_values_are_no_outliers_by_rounding(a, b, bins):
    """Two values are the quartiles of themselves."""
    h = of([a, b], bins=bins)
    assert (sum(h.counts), h.underflow, h.overflow) == (2, 0, 0)


def test_outliers_do_not_squeeze_the_rest():
    h = of([*[x / 10 for x in range(-10, 11)], 1e6, -1e6, math.inf])
    assert (h.underflow, h.overflow) == (1, 2)
    assert -10 <= h.edges[0] <= -1
    assert 1 <= h.edges[-1] <= 10


def test_the_largest_value_belongs_to_the_last_bin():
    h = of([1.0, 2.0, 4.0], bins=5)
    assert h.edges == [-1, 0, 1, 2, 3, 4]
    assert h.counts == [0, 0, 1, 1, 1]


@pytest.mark.parametrize("values", [[], [0.0, 0.0], [math.nan]])
def test_nothing_to_show_is_one_bin_either_side_of_0(values):
    h = of(values)
    assert h.edges == [-1, 0, 1]
    assert h.counts == [0, values.count(0.0)]


def test_values_that_are_exactly_0_are_counted_apart_too():
    """They lie right of 0, where entropy rises, and they move nothing."""
    h = of([0.0, -0.0, 0.75, 1.0, -1.0], bins=4)
    assert h.edges == [-1, -0.5, 0, 0.5, 1]
    assert h.counts == [1, 0, 2, 2]
    assert h.zeros == 2


def test_a_constant_is_one_full_bin():
    assert of([-3.0] * 5).counts == [5] + [0] * 23
    assert of([3.0] * 5).counts == [0] * 23 + [5]


def test_impossible_bins_are_refused():
    with pytest.raises(ValueError, match="2 bins or more, got 1"):
        of([1.0], bins=1)
    with pytest.raises(ValueError, match="must ascend"):
        of([1.0], edges=torch.tensor([0.0, 0.0]))
