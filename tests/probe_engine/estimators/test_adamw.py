"""δH₁ of the optimizer's own step on the enumerable model: error and interval against ∇H·Δθ.

X̄_E·Δθ has two errors. That of E, given the step, is `se_conditional`: its interval is about the change that
this very step makes. That of U, whose responses made the step, comes to it in `se`: its interval is about
the step that such a batch makes on average. Both are held against enumeration, for either form of X.
"""

from __future__ import annotations

import math
from functools import cache

import pytest
import torch
from oracles.enumeration import Enumerable
from torch import Tensor

from probe_engine.estimators.adamw import adamw_estimate
from probe_engine.estimators.intervals import t_interval
from probe_engine.report import AdamwEstimate, AdamwParts

MODEL = Enumerable()
B_E, B_U, G, BATCHES = 16, 8, 4, 500
LAMBDA = 1 / MODEL.max_length
LAM = torch.full((len(MODEL.listed),), LAMBDA, dtype=torch.float64)
TRUE_GRADIENT = MODEL.entropy_gradient(LAM).mean(0)
FORMS = ("score", "rao_blackwell")

LR, BETA1, BETA2, DECAY, STEPS = 1e-2, 0.9, 0.99, 0.1, 3
GENERATOR = torch.Generator().manual_seed(0)
M = 0.003 * torch.randn(len(MODEL.theta), generator=GENERATOR, dtype=torch.float64)
V = 1e-4 * torch.rand(len(MODEL.theta), generator=GENERATOR, dtype=torch.float64)


def step(mean_y: Tensor) -> Tensor:
    """Δθ of AdamW after some steps, [..., P]."""
    m = BETA1 * M - (1 - BETA1) * mean_y
    v = BETA2 * V + (1 - BETA2) * mean_y.square()
    root = (v / (1 - BETA2**STEPS)).sqrt()
    return -LR * (m / (1 - BETA1**STEPS) / (root + 1e-8) + DECAY * MODEL.theta)


@cache
def x(form: str) -> Tensor:
    """X_n of E of many batches, [BATCHES, B_E, P]."""
    draw = MODEL.draw(BATCHES, B_E, G, seed=1)
    return MODEL.x(draw, LAM) if form == "score" else MODEL.x_rao_blackwell(draw, LAMBDA)


def y(batches: int, seed: int) -> Tensor:
    """Y_m of U of many batches, [batches, B_U, P]."""
    return MODEL.y(MODEL.draw(batches, B_U, G, seed), LAM)


def estimates(form: str, y_units: Tensor) -> list[AdamwEstimate]:
    """Of each batch of E and its step, made of `y_units` [BATCHES or 1, B_U, P]."""
    mean_y = y_units.mean(1).requires_grad_()
    delta = step(mean_y)
    along = torch.einsum("rbp,rp->rb", x(form), delta.detach().expand(BATCHES, -1))
    mean_x = x(form).mean(1)
    per_batch = mean_y.expand(BATCHES, -1)
    (w,) = torch.autograd.grad((mean_x * step(per_batch)).sum(), per_batch)
    shares = torch.einsum("rp,rbp->rb", w, y_units.expand(BATCHES, -1, -1))
    parts = AdamwParts(gradient=0.0, clipping=0.0, momentum=0.0, weight_decay=0.0)
    rows = zip(along, shares, strict=True)
    return [adamw_estimate(e, u, parts, clip=1.0, max_grad_norm=None) for e, u in rows]


def values(of: list[AdamwEstimate]) -> Tensor:
    return torch.tensor([e.delta_h1 for e in of], dtype=torch.float64)


def covered(intervals: list[tuple[float, float] | None], truths: Tensor) -> float:
    rows = zip(intervals, truths.tolist(), strict=True)
    return sum(i is not None and i[0] <= truth <= i[1] for i, truth in rows) / len(intervals)


def of_this_step(found: list[AdamwEstimate]) -> list[tuple[float, float] | None]:
    return [t_interval(e.delta_h1, e.se_conditional, e.B_E - 1) for e in found]


@pytest.mark.parametrize("form", FORMS)
class TestOneStepForAllBatches:
    """Δθ is held fixed: the estimate is linear in X̄."""

    @pytest.fixture
    def fixed(self) -> Tensor:
        return y(1, seed=2)

    @pytest.fixture
    def truth(self, fixed: Tensor) -> float:
        return float(TRUE_GRADIENT @ step(fixed.mean(1))[0])

    def test_it_is_unbiased_and_its_error_is_its_spread(self, form: str, fixed: Tensor, truth: float) -> None:
        found = estimates(form, fixed)
        spread = float(values(found).std())
        assert abs(float(values(found).mean()) - truth) < 4 * spread / math.sqrt(BATCHES)
        assert abs(truth) > spread / 4
        claimed = torch.tensor([e.var_e for e in found]).mean().sqrt()
        assert float(claimed) == pytest.approx(spread, rel=0.15)

    def test_its_interval_covers(self, form: str, fixed: Tensor, truth: float) -> None:
        intervals = of_this_step(estimates(form, fixed))
        assert 0.91 <= covered(intervals, torch.full((BATCHES,), truth)) <= 0.98


@pytest.mark.parametrize("form", FORMS)
class TestEachBatchItsOwnStep:
    @pytest.fixture
    def own(self) -> Tensor:
        return y(BATCHES, seed=3)

    def test_given_the_step_the_interval_covers_what_it_does(self, form: str, own: Tensor) -> None:
        truths = step(own.mean(1)) @ TRUE_GRADIENT
        assert 0.91 <= covered(of_this_step(estimates(form, own)), truths) <= 0.98

    def test_the_whole_interval_covers_what_such_steps_do_on_average(self, form: str, own: Tensor) -> None:
        truth = float((step(y(20_000, seed=4).mean(1)) @ TRUE_GRADIENT).mean())
        found, truths = estimates(form, own), torch.full((BATCHES,), truth)
        spread = float(values(found).std())
        claimed = torch.tensor([e.var_e + e.var_u for e in found]).mean().sqrt()
        assert float(claimed) == pytest.approx(spread, rel=0.15)
        both = covered([e.ci95 for e in found], truths)
        assert 0.91 <= both <= 0.98
        assert covered(of_this_step(found), truths) < both - 0.01


def test_the_rao_blackwell_form_is_quieter() -> None:
    spreads = [float(values(estimates(form, y(1, seed=2))).std()) for form in FORMS]
    assert spreads[1] < spreads[0]
