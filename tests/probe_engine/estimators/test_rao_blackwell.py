"""The Rao-Blackwell entropy gradient against ∇H of a model that can be enumerated."""

from __future__ import annotations

import pytest
import torch
from oracles.enumeration import Enumerable
from torch import Tensor

from probe_engine.estimators.rao_blackwell import entropies_to_come


def pair_gradients(model: Enumerable, c: int) -> tuple[Tensor, Tensor]:
    """X by (2b) of every pair of responses (G = 2, λ = 1), [N², P], and the pairs' chances [N²]."""
    theta = model.theta.clone().requires_grad_()
    log_probs, h = (of[c] for of in model.places(theta))
    N = len(model.listed)
    first, second = (i.flatten() for i in torch.meshgrid(torch.arange(N), torch.arange(N), indexing="ij"))
    both = torch.stack([first, second], 1).flatten()
    group = torch.arange(N * N).repeat_interleave(2)
    tails = entropies_to_come(h[both], group)
    surrogate = (h[both] + tails * log_probs[both]).sum(1).view(-1, 2).mean(1)
    gradients = torch.autograd.functional.jacobian(
        lambda t: _surrogate(model, t, c, both, tails), theta, vectorize=True
    )
    assert torch.allclose(_surrogate(model, theta, c, both, tails), surrogate)
    chances = model.probabilities[c]
    return gradients, chances[first] * chances[second]


def _surrogate(model: Enumerable, theta: Tensor, c: int, both: Tensor, tails: Tensor) -> Tensor:
    log_probs, h = (of[c] for of in model.places(theta))
    return (h[both] + tails * log_probs[both]).sum(1).view(-1, 2).mean(1)


@pytest.mark.parametrize("c", [0, 3])
def test_its_expectation_is_the_entropy_gradient(c: int) -> None:
    model = Enumerable(vocabulary=3)
    gradients, chances = pair_gradients(model, c)
    exact = model.entropy_gradient(torch.ones(len(model.listed), dtype=torch.float64))[c]
    torch.testing.assert_close(chances @ gradients, exact, rtol=1e-12, atol=1e-12)


def test_its_spread_is_below_that_of_the_score_form() -> None:
    model = Enumerable(vocabulary=3)
    gradients, chances = pair_gradients(model, 0)
    S, scores = model.S[0], model.scores[0]
    N = len(S)
    first, second = (i.flatten() for i in torch.meshgrid(torch.arange(N), torch.arange(N), indexing="ij"))
    c = (S[first] - S[second])[:, None]
    score_form = -(c * scores[first] - c * scores[second]) / 2
    exact = chances @ gradients
    torch.testing.assert_close(chances @ score_form, exact, rtol=1e-10, atol=1e-10)

    def spread(x: Tensor) -> float:
        return float(chances @ (x - exact).square().sum(1))

    assert spread(gradients) < spread(score_form)


def test_the_weights_are_detached_and_the_last_place_has_nothing_to_come() -> None:
    h = torch.rand(4, 5, requires_grad=True)
    tails = entropies_to_come(h, torch.tensor([0, 0, 1, 1]))
    assert not tails.requires_grad
    assert torch.equal(tails[:, -1], torch.zeros(4, dtype=torch.float64))
    assert torch.allclose(tails[0], -tails[1])


def test_the_drawn_prompts_of_the_oracle_are_those_of_the_estimator() -> None:
    """What coverage is tested with (test_adamw.py)."""
    model, lam = Enumerable(), 0.5
    draw = model.draw(1, 3, 4, seed=0)
    theta = model.theta.clone().requires_grad_()
    of, sequences = draw.contexts[0].repeat_interleave(4), draw.sequences[0].flatten()
    log_probs, h = (places[of, sequences] for places in model.places(theta))
    tails = entropies_to_come(h, torch.arange(3).repeat_interleave(4))
    per_prompt = lam * (h + tails * log_probs).sum(1).view(3, 4).mean(1)
    for n, x in enumerate(model.x_rao_blackwell(draw, lam)[0]):
        (exact,) = torch.autograd.grad(per_prompt[n], theta, retain_graph=True)
        torch.testing.assert_close(x, exact, rtol=1e-12, atol=1e-12)
