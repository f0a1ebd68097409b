"""The per-decision measurement against the exact change of a model that can be enumerated."""

from __future__ import annotations

from functools import cached_property

import pytest
import torch
from oracles.enumeration import Enumerable
from torch import Tensor

from probe_engine.estimators.importance import Samples, matched
from probe_engine.estimators.per_decision import Decisions, changes, per_decision

LAM = 1.0


class Moved:
    """The enumerable model before and after a step, place by place."""

    def __init__(self, size: float, seed: int = 0) -> None:
        self.model = Enumerable(seed=seed)
        generator = torch.Generator().manual_seed(seed)
        self.step = size * torch.randn(len(self.model.theta), generator=generator, dtype=torch.float64)

    @cached_property
    def places(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """log π, log π⁺, h, h⁺ of every listed sequence's places, each [C, N, T]; 0 after the end."""
        m = self.model
        V, C, N, T = m.vocabulary, m.contexts, len(m.listed), m.max_length
        found = []
        for theta in (m.theta, m.theta + self.step):
            table = torch.log_softmax(theta.view(V, V) + m.offsets, dim=-1)
            entropies = -(table.exp() * table).sum(-1)
            log_probs, h = torch.zeros(2, C, N, T, dtype=torch.float64)
            for n, sequence in enumerate(m.listed):
                for t, (previous, token) in enumerate(zip((0, *sequence), sequence, strict=False)):
                    log_probs[:, n, t] = table[:, t, previous, token]
                    h[:, n, t] = entropies[:, t, previous]
            found += [log_probs, h]
        before, h, after, h_plus = found
        return before, after, h, h_plus

    @cached_property
    def truth(self) -> float:
        return self.model.change(torch.ones(len(self.model.listed), dtype=torch.float64), self.step)

    def drawn(self, batches: int, B: int, G: int, seed: int) -> list[tuple[Samples, Decisions]]:
        """Batches of responses, sampled before the step."""
        draw = self.model.draw(batches, B, G, seed)
        result = []
        for contexts, sequences in zip(draw.contexts, draw.sequences, strict=True):
            before, after, h, h_plus = (t[contexts[:, None], sequences].flatten(0, 1) for t in self.places)
            unit = torch.arange(B).repeat_interleave(G)
            n = B * G
            samples = Samples(
                S=before.sum(1),
                S_plus=after.sum(1),
                lam=torch.full((n,), LAM, dtype=torch.float64),
                weight=torch.full((n,), 1 / n, dtype=torch.float64),
                unit=unit,
                group=unit,
            )
            result.append((samples, Decisions(after - before, h, h_plus)))
        return result


def test_its_expectation_is_the_exact_change() -> None:
    """Over every pair of a prompt's responses: the first is measured, the second is its baseline."""
    moved = Moved(0.5)
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
    moved = Moved(0.5)
    batches = moved.drawn(300, 8, 4, seed=1)
    with_b = torch.tensor([per_decision(*batch).delta_h for batch in batches])
    without = torch.stack([changes(d, torch.zeros_like(d.h)).mean() for _, d in batches])
    assert abs(float(with_b.mean()) - moved.truth) < 4 * float(with_b.std()) / 300**0.5
    assert abs(float(without.mean()) - moved.truth) < 4 * float(without.std()) / 300**0.5
    assert with_b.std() < without.std()


@pytest.mark.parametrize("size", [0.1, 0.35])
def test_it_is_quieter_than_matched_and_its_error_is_its_spread(size: float) -> None:
    moved = Moved(size)
    batches = moved.drawn(500, 16, 4, seed=2)
    rms = float(torch.cat([s.log_w for s, _ in batches]).square().mean().sqrt())
    assert rms <= 0.5
    ours = [per_decision(*batch) for batch in batches]
    theirs = torch.tensor([matched(samples).delta_h for samples, _ in batches])
    values = torch.tensor([change.delta_h for change in ours])
    assert values.std() < theirs.std()
    se = torch.tensor([change.se or 0.0 for change in ours]).square().mean().sqrt()
    assert float(se / values.std()) == pytest.approx(1, abs=0.15)


def test_no_step_no_change_and_the_entropy_before_is_the_mean_of_exact_entropies() -> None:
    moved = Moved(0.0)
    samples, decisions = moved.drawn(1, 6, 3, seed=3)[0]
    change = per_decision(samples, decisions)
    assert change.delta_h == 0
    assert change.se == 0
    assert change.h_before == pytest.approx(float(decisions.h.sum(1).mean()))


def test_rows_of_different_lengths_are_padded_with_nothing() -> None:
    rows = [torch.tensor([-1.0, -2.0]), torch.tensor([-3.0])]
    moved = [row - 0.5 for row in rows]
    made = Decisions.of(rows, moved, [r.abs() for r in rows], [r.abs() for r in moved])
    assert made.log_ratio.tolist() == [[-0.5, -0.5], [-0.5, 0.0]]
    assert made.h_plus.tolist() == [[1.5, 2.5], [3.5, 0.0]]


def test_length_weights_that_differ_are_refused() -> None:
    samples, decisions = Moved(0.1).drawn(1, 4, 2, seed=4)[0]
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
