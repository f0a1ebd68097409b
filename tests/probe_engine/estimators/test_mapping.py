"""Rank correlation of exp_avg_sq with the fresh gradient²."""

from __future__ import annotations

import pytest
import torch
from scipy.stats import spearmanr

from probe_engine.estimators.mapping import mapping_correlation


def parameter(shape: tuple[int, ...], seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """exp_avg_sq, and a gradient of the same scale, entry by entry."""
    generator = torch.Generator().manual_seed(seed)
    v = torch.randn(shape, generator=generator).mul(2).exp()
    return v, v.sqrt() * torch.randn(shape, generator=generator)


def test_it_is_spearmans_median():
    v, g = zip(*(parameter((7, 5), seed) for seed in range(3)), strict=True)
    expected = sorted(spearmanr(a.flatten(), b.flatten() ** 2).statistic for a, b in zip(v, g, strict=True))
    assert mapping_correlation(v, g) == pytest.approx(expected[1])


def test_a_permutation_among_equal_shapes_shows():
    v, g = zip(*(parameter((40, 40), seed) for seed in range(4)), strict=True)
    assert mapping_correlation(v, g) > 0.6
    assert abs(mapping_correlation(v[1:] + v[:1], g)) < 0.1


def test_a_large_parameter_is_sampled_from_all_its_columns():
    v = torch.arange(64.0).expand(4096, 64).clone()
    assert mapping_correlation([v], [v.sqrt()]) == pytest.approx(1)


def test_entries_and_parameters_that_say_nothing_are_skipped():
    v, g = parameter((30,), 0)
    constant, single, spoilt = torch.ones(30), torch.ones(1), torch.full((30,), torch.nan)
    expected = mapping_correlation([v], [g])
    assert mapping_correlation([constant, v, single, spoilt], [g, g, single, g]) == expected
    assert mapping_correlation([constant, single, spoilt], [g, single, g]) is None
    assert mapping_correlation([], []) is None
    partly = torch.cat([v, torch.tensor([torch.inf])])
    assert mapping_correlation([partly], [torch.cat([g, torch.ones(1)])]) == expected
