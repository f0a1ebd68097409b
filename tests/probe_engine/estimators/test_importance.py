"""SNIS, matched and PSIS against naive twins and arviz; their weights' diagnostics."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from arviz_stats.base import array_stats
from oracles import importance as naive
from oracles.enumeration import Enumerable

from probe_engine.estimators.entropy import length_weights
from probe_engine.estimators.importance import matched, psis, snis
from probe_engine.estimators.rescored import Samples, unit_ess
from probe_engine.estimators.weights import (
    degenerate,
    ess,
    ess_status,
    khat_status,
    khat_threshold,
    pareto_khat,
)

# Units of one or two prompts, prompts of two or three responses.
UNIT = [0, 0, 0, 0, 0, 1, 1, 1, 2, 2]
GROUP = [0, 0, 1, 1, 1, 2, 2, 2, 3, 3]


def ragged(step: float = 0.3) -> tuple[Samples, list[naive.Response]]:
    generator = torch.Generator().manual_seed(0)
    S, change, lam = torch.rand(3, len(UNIT), generator=generator, dtype=torch.float64)
    responses = [
        naive.Response(-10 * a, -10 * a + step * (b - 0.5), c, u, g)
        for a, b, c, u, g in zip(S.tolist(), change.tolist(), lam.tolist(), UNIT, GROUP, strict=True)
    ]
    samples = Samples(
        S=torch.tensor([r.S for r in responses], dtype=torch.float64),
        S_plus=torch.tensor([r.S_plus for r in responses], dtype=torch.float64),
        lam=torch.tensor([r.lam for r in responses], dtype=torch.float64),
        weight=torch.tensor(naive.shares(responses), dtype=torch.float64),
        unit=torch.tensor(UNIT),
        group=torch.tensor(GROUP),
    )
    return samples, responses


def equal(S: torch.Tensor, S_plus: torch.Tensor, lam: torch.Tensor) -> Samples:
    """B units of one prompt with G responses each; arguments [B, G]."""
    B, G = S.shape
    unit = torch.arange(B).repeat_interleave(G)
    return Samples(
        S=S.flatten(),
        S_plus=S_plus.flatten(),
        lam=lam.flatten(),
        weight=torch.full((B * G,), 1 / (B * G), dtype=torch.float64),
        unit=unit,
        group=unit,
    )


def test_estimates_equal_the_naive_twins_with_unequal_sizes():
    samples, responses = ragged()
    assert snis(samples).delta_h == pytest.approx(naive.snis(responses), rel=1e-12)
    assert snis(samples).se == pytest.approx(naive.snis_se(responses), rel=1e-12)
    assert matched(samples).delta_h == pytest.approx(naive.matched(responses), rel=1e-12)


@pytest.mark.parametrize("estimator", [snis, matched, psis])
def test_unit_shares_average_to_the_change(estimator):
    samples, _ = ragged()
    change = estimator(samples)
    assert float(change.d_units.mean()) == pytest.approx(change.delta_h, rel=1e-12)
    assert change.h_after - change.h_before == pytest.approx(change.delta_h, rel=1e-12)
    assert change.se == pytest.approx(float(change.d_units.std()) / math.sqrt(3))


@pytest.mark.parametrize("estimator", [snis, matched, psis])
def test_no_step_changes_nothing_and_costs_no_sample(estimator):
    samples, _ = ragged(step=0)
    change = estimator(samples)
    assert change.delta_h == pytest.approx(0, abs=1e-15)
    assert change.ess == pytest.approx(len(UNIT))
    assert change.khat is None


@pytest.mark.parametrize("estimator", [snis, matched, psis])
@pytest.mark.parametrize("bad", [math.nan, math.inf, 1e6])
def test_broken_weights_give_no_exception_and_no_number(estimator, bad):
    samples, _ = ragged()
    S_plus = samples.S_plus.clone()
    S_plus[3] = bad
    change = estimator(replace(samples, S_plus=S_plus))
    # A single overwhelming but finite weight leaves SNIS finite; its ESS tells.
    assert not math.isfinite(change.delta_h) or change.ess == pytest.approx(1, abs=2)


def test_one_unit_has_no_error():
    S = torch.tensor([[-1.0, -2.0]])
    assert matched(equal(S, S - 0.1, torch.ones(1, 2))).se is None


def test_impossible_samples_are_refused():
    samples, _ = ragged()
    for changed, said in [
        ({"lam": samples.lam[:-1]}, "one number a response"),
        ({"unit": samples.unit + 1}, "numbered 0"),
        ({"weight": samples.weight * 2}, "sum to 1/3"),
        ({"group": torch.tensor([0, 0, 1, 1, 1, 1, 2, 2, 3, 3])}, "one unit"),
        ({"group": torch.tensor([0, 0, 1, 1, 1, 2, 2, 2, 3, 4])}, "2 responses or more"),
    ]:
        with pytest.raises(ValueError, match=said):
            replace(samples, **changed)


def test_ess():
    log_w = torch.tensor([0.1, -0.5, 1.2, 0.0], dtype=torch.float64)
    w = log_w.exp()
    assert ess(log_w, torch.ones(4)) == pytest.approx(float(w.sum() ** 2 / (w * w).sum()))
    assert ess(log_w + 5000, torch.ones(4)) == pytest.approx(ess(log_w, torch.ones(4)))
    assert ess(torch.zeros(3), torch.tensor([0.5, 0.25, 0.25])) == pytest.approx(3)
    samples, _ = ragged()
    per_unit = unit_ess(samples)
    assert float(per_unit[1]) == pytest.approx(ess(samples.log_w[5:8], torch.ones(3)))
    assert bool(((per_unit >= 1) & (per_unit <= torch.tensor([5, 3, 2]))).all())


def test_diagnostics_at_their_borders():
    assert [ess_status(x) for x in (0.5, 0.499, 0.3, 0.299, math.nan)] == [
        "ok",
        "warn",
        "warn",
        "fail",
        "fail",
    ]
    assert khat_threshold(100) == pytest.approx(0.5)
    assert khat_threshold(10**6) == 0.7
    assert [khat_status(x, 100, 0.899) for x in (None, 0.5, 0.501, 0.999, 1.0)] == [
        "ok",
        "ok",
        "warn",
        "warn",
        "fail",
    ]


@pytest.mark.parametrize(
    ("ess_fraction", "khat", "expected"),
    [(0.3, None, False), (0.2999, None, True), (0.89, 1.0, True), (0.89, 0.999, False), (0.9, 1.0, False)],
)
def test_weights_degenerate_where_one_of_the_two_fails(ess_fraction, khat, expected):
    assert degenerate(ess_fraction, khat, 100) == expected


def heavy(n: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(1).standard_t(3, size=n))


@pytest.mark.parametrize("n", [25, 100, 1000])
def test_psis_is_arviz_with_its_sign(n):
    log_w = heavy(n)
    expected, khat = array_stats.psislw(-log_w.numpy())
    assert pareto_khat(log_w) == pytest.approx(float(khat), rel=1e-12)
    S = torch.linspace(-9, -1, 2 * n, dtype=torch.float64)[:n].view(1, n)
    lam = torch.ones(1, n, dtype=torch.float64)
    change = psis(equal(S, S + log_w, lam))
    weights = torch.from_numpy(expected).exp()
    after = -float((weights * (S + log_w)).sum() / weights.sum())
    assert change.h_after == pytest.approx(after, rel=1e-9)
    assert change.khat == pytest.approx(float(khat), rel=1e-12)
    assert change.ess == pytest.approx(float(weights.sum() ** 2 / (weights * weights).sum()), rel=1e-9)


@pytest.mark.parametrize(
    "log_w",
    [
        heavy(24),
        torch.zeros(100),
        torch.cat([torch.full((90,), -1.0), torch.zeros(30)]),
        torch.cat([torch.full((99,), -1.0), torch.zeros(1)]),
        torch.cat([heavy(50), torch.tensor([math.nan])]),
        torch.cat([heavy(50), torch.tensor([math.inf])]),
    ],
    ids=["too few", "constant", "tied tail", "one apart", "nan", "inf"],
)
def test_no_tail_no_khat(log_w):
    assert pareto_khat(log_w) is None


def test_the_tail_of_even_weights_is_no_objection():
    rng = np.random.default_rng(0)
    weights = [torch.from_numpy(rng.normal(size=48) * 0.05) for _ in range(100)]
    fits = [(pareto_khat(w), ess(w, torch.ones(48)) / 48) for w in weights]
    assert sum(khat > khat_threshold(48) for khat, _ in fits) >= 5
    assert all(khat_status(khat, 48, fraction) == "ok" for khat, fraction in fits)


def test_khat_tells_a_heavy_tail_from_a_light_one():
    rng = np.random.default_rng(0)
    assert pareto_khat(torch.from_numpy(rng.normal(size=2000) * 0.1)) < 0.3
    assert pareto_khat(torch.from_numpy(rng.exponential(size=2000) * 1.5)) > 1


@pytest.mark.parametrize("weighting", ["dr_grpo", "per_token"])
def test_matched_becomes_the_prediction_as_the_step_shrinks(weighting):
    model = Enumerable()
    kappa = torch.full((len(model.listed),), 1 / model.max_length, dtype=torch.float64)
    step = 8 * model.preconditioner * model.expected_y(kappa).mean(0)
    draw = model.draw(1, 16, 4, seed=1)
    lam = length_weights(model.lengths, weighting, model.max_length)
    mean_x, S = model.x(draw, lam)[0].mean(0), model.of(model.S, draw)[0]
    misses = []
    for scale in (1.0, 0.1, 0.01, 1e-6):
        S_plus = model.of(model.log_probs(model.theta + scale * step), draw)[0]
        change = matched(equal(S, S_plus, lam[draw.sequences[0]]))
        misses.append(abs(change.delta_h / float(mean_x @ (scale * step)) - 1))
    assert misses[0] > 0.05
    assert misses[1] < 0.2 * misses[0]
    assert misses[2] < 0.2 * misses[1]
    assert misses[3] < 1e-4
