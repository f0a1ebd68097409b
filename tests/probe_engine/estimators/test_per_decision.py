"""The per-decision measurement against the exact change of a model that can be enumerated."""

from __future__ import annotations

import pytest
import torch
from oracles.moved import Moved

from probe_engine.estimators.per_decision import Decisions, changes, per_decision
from probe_engine.estimators.rao_blackwell import entropies_to_come
from probe_engine.estimators.rescored import Samples, leave_one_out_mean


def test_its_expectation_is_the_exact_change() -> None:
    """Over every pair of a prompt's responses: the first is measured, the second is its baseline."""
    moved = Moved.at_random(0.5, weighting="sequence")
    before, after, h, h_plus = moved.places
    N = before.shape[1]
    first, second = (
        index.flatten() for index in torch.meshgrid(torch.arange(N), torch.arange(N), indexing="ij")
    )
    expected = torch.zeros((), dtype=torch.float64)
    for c, probabilities in enumerate(moved.model.probabilities):
        decisions = Decisions((after - before)[c, first], h[c, first], h_plus[c, first])
        chance = probabilities[first] * probabilities[second]
        expected += (chance * changes(decisions, h[c, second])).sum() / moved.model.contexts
    assert float(expected) == pytest.approx(moved.truth, abs=1e-12)


def test_the_baseline_changes_no_expectation_but_the_spread() -> None:
    moved = Moved.at_random(0.5, weighting="sequence")
    batches = list(moved.drawn(300, 8, 4, seed=1))
    with_b = torch.tensor([per_decision(b.samples, b.decisions).delta_h for b in batches])
    without = torch.stack([changes(b.decisions, torch.zeros_like(b.decisions.h)).mean() for b in batches])
    assert abs(float(with_b.mean()) - moved.truth) < 4 * float(with_b.std()) / 300**0.5
    assert abs(float(without.mean()) - moved.truth) < 4 * float(without.std()) / 300**0.5
    assert with_b.std() < without.std()


def test_no_step_no_change_and_the_entropy_before_is_the_mean_of_exact_entropies() -> None:
    moved = Moved.at_random(0.0, weighting="sequence")
    (drawn,) = moved.drawn(1, 6, 3, seed=3)
    change = per_decision(drawn.samples, drawn.decisions)
    assert change.delta_h == 0
    assert change.se == 0
    assert change.h_before == pytest.approx(float(drawn.decisions.h.sum(1).mean()))


def test_its_first_order_is_that_of_the_rao_blackwell_gradient_response_by_response() -> None:
    """So the sweep's departures hold no sampling noise: λ·Σ_t [ ∇h_t + W_t·∇log π_t ]·Δθ, W_t of (2b)."""
    whole, tiny = Moved.at_random(0.5), Moved.at_random(1e-6)
    (drawn,) = tiny.drawn(1, 6, 3, seed=3)
    d, group = drawn.decisions, drawn.samples.group
    to_come = entropies_to_come(d.h, group)
    slope = (d.h_plus - d.h + to_come * d.log_ratio).sum(1)
    measured = changes(d, leave_one_out_mean(d.h, group))
    torch.testing.assert_close(measured, slope, rtol=1e-4, atol=1e-12)
    (drawn,) = whole.drawn(1, 6, 3, seed=3)
    d = drawn.decisions
    bent = changes(d, leave_one_out_mean(d.h, group)) - (d.h_plus - d.h + to_come * d.log_ratio).sum(1)
    assert float(bent.abs().max()) > 1e-3


def test_rows_of_different_lengths_are_padded_with_nothing() -> None:
    rows = [torch.tensor([-1.0, -2.0]), torch.tensor([-3.0])]
    moved = [row - 0.5 for row in rows]
    made = Decisions.of(rows, moved, [r.abs() for r in rows], [r.abs() for r in moved])
    assert made.log_ratio.tolist() == [[-0.5, -0.5], [-0.5, 0.0]]
    assert made.h_plus.tolist() == [[1.5, 2.5], [3.5, 0.0]]


def test_length_weights_that_differ_are_refused() -> None:
    (drawn,) = Moved.at_random(0.1).drawn(1, 4, 2, seed=4)
    samples, decisions = drawn.samples, drawn.decisions
    uneven = Samples(
        samples.S,
        samples.S_plus,
        torch.linspace(0.5, 1, samples.N, dtype=torch.float64),
        samples.weight,
        samples.unit,
        samples.group,
    )
    with pytest.raises(ValueError, match="per_token"):
        per_decision(uneven, decisions)
    with pytest.raises(ValueError, match="responses"):
        per_decision(samples, Decisions(decisions.h[1:], decisions.h[1:], decisions.h[1:]))
