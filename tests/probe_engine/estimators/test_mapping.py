"""Rank correlation of exp_avg_sq with the fresh gradient²."""

from __future__ import annotations

from itertools import permutations

import pytest
import torch
from scipy.stats import spearmanr

from probe_engine.estimators.mapping import (
    ENTRIES,
    PARAMETERS,
    GradientSquares,
    best_assignment,
    mapping_correlation,
)
from probe_engine.registry import ParameterRegistry
from probe_engine.vectors import Share, shares


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


def test_of_many_parameters_some_of_every_kind_are_asked():
    """An adapter alternates lora_A and lora_B: here one kind fits and the other is the wrong way round."""
    v = [parameter((20, 20), seed)[0] for seed in range(2 * PARAMETERS)]
    g = [a.sqrt() if index % 2 else a.rsqrt() for index, a in enumerate(v)]
    asked = []
    for half in (0, 1):
        told = [a if index % 2 == half else None for index, a in enumerate(g)]
        asked.append(mapping_correlation(v, told))
    assert asked == [pytest.approx(-1), pytest.approx(1)]


def test_entries_and_parameters_that_say_nothing_are_skipped():
    v, g = parameter((30,), 0)
    constant, single, spoilt = torch.ones(30), torch.ones(1), torch.full((30,), torch.nan)
    expected = mapping_correlation([v], [g])
    assert mapping_correlation([constant, v, single, spoilt], [g, g, single, g]) == expected
    assert mapping_correlation([constant, single, spoilt], [g, single, g]) is None
    assert mapping_correlation([], []) is None
    partly = torch.cat([v, torch.tensor([torch.inf])])
    assert mapping_correlation([partly], [torch.cat([g, torch.ones(1)])]) == expected


def over(*shapes):
    parameters = tuple(torch.nn.Parameter(torch.zeros(shape)) for shape in shapes)
    return ParameterRegistry(tuple(map(str, range(len(shapes)))), parameters)


def squares(gradients):
    kept = GradientSquares(over(*(g.shape for g in gradients)))
    for index, gradient in enumerate(gradients):
        kept.add(Share(index), gradient)
    return kept.sampled


def test_squares_are_summed_over_gradients_and_a_missing_one_stays_missing():
    kept = GradientSquares(over(2, 3 * ENTRIES))
    kept.add(Share(0), torch.tensor([1.0, 2.0]))
    kept.add(Share(0), torch.tensor([3.0, -4.0]))
    assert kept.sampled[0].tolist() == [10.0, 20.0]
    assert kept.sampled[1] is None
    kept.add(Share(1), torch.ones(3 * ENTRIES))
    assert len(kept.sampled[1]) == ENTRIES


def test_squares_of_rows_are_those_of_the_whole_parameter():
    _, gradient = parameter((300, 7, 5), 0)
    by_rows = GradientSquares(over(gradient.shape))
    for share in shares(0, gradient, numbers=1000):
        assert not share.whole
        by_rows.add(share, share.of(gradient))
    assert torch.equal(by_rows.sampled[0], squares([gradient])[0])


def test_the_best_assignment_is_that_of_trying_all():
    parameters = [
        *(parameter((6, 4), seed) for seed in range(4)),
        *(parameter((9,), seed) for seed in range(4, 7)),
    ]
    v, g = (list(part) for part in zip(*parameters, strict=True))
    v = [v[i] for i in (2, 0, 3, 1, 4, 6, 5)]

    def weighted(order):
        rho = [spearmanr(v[j].flatten(), g[i].flatten() ** 2).statistic for i, j in enumerate(order)]
        weights = [g_i.numel() ** 0.5 for g_i in g]
        return sum(r * w for r, w in zip(rho, weights, strict=True)) / sum(weights)

    found = best_assignment(v, squares(g))
    orders = [[*a, *b] for a in permutations(range(4)) for b in permutations(range(4, 7))]
    assert found.taken == pytest.approx(weighted(range(7)))
    assert found.best == pytest.approx(max(map(weighted, orders)))
    assert list(found.order) == max(orders, key=weighted)


def test_shapes_that_occur_once_leave_nothing_to_choose():
    v, g = zip(parameter((6, 4), 0), parameter((4, 6), 1), strict=True)
    assert best_assignment(v, squares(g)) is None


def test_what_says_nothing_about_the_order_counts_as_no_correlation():
    v, g = parameter((30,), 0)
    found = best_assignment([v, torch.ones(30)], squares([g, torch.full((30,), torch.nan)]))
    assert found.taken == found.best == pytest.approx(spearmanr(v, g**2).statistic / 2)


def test_short_vectors_gain_by_chance_what_long_ones_do_not():
    """As many short vectors as IA3 has, in their own order and with noise: another order may fit better."""
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        v, g = zip(*(noisy((16,), generator) for _ in range(14)), strict=True)
        found = best_assignment(v, g)
        assert found.best - found.taken < found.chance
    v, g = zip(*(noisy((40, 40), generator) for _ in range(14)), strict=True)
    turned = best_assignment(v[1:] + v[:1], g)
    assert turned.best - turned.taken > 2 * turned.chance


def noisy(shape: tuple[int, ...], generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """exp_avg_sq, and a fresh gradient² that says a little of it."""
    v = torch.randn(shape, generator=generator).mul(0.5).exp()
    return v, (v * torch.randn(shape, generator=generator).square()).flatten()
