"""Token statistics against sums over the vocabulary, one token and one β at a time."""

from __future__ import annotations

import pytest
import torch

from probe_engine.estimators.token_statistics import (
    INVERSE_TEMPERATURES,
    TokenStatistics,
    room_for,
    token_scores,
    token_statistics,
)

T, V = 7, 11


@pytest.fixture
def drawn() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(T, V, generator=generator, dtype=torch.float64)
    return logits, torch.randint(V, (T,), generator=generator)


def test_every_number_is_the_sum_that_it_says(drawn):
    logits, sampled = drawn
    found = token_statistics(logits, sampled)
    for t in range(T):
        ell = [float(x) for x in logits[t] - logits[t].exp().sum().log()]
        p = torch.tensor(ell, dtype=torch.float64).exp().tolist()
        y = int(sampled[t])
        h = -sum(a * b for a, b in zip(p, ell, strict=True))
        assert float(found.log_probs[t]) == pytest.approx(ell[y])
        assert float(found.entropies[t]) == pytest.approx(h)
        assert float(found.surprise_variances[t]) == pytest.approx(
            sum(a * (b + h) ** 2 for a, b in zip(p, ell, strict=True))
        )
        assert float(found.ahead[t]) == pytest.approx(sum(a for a in p if a > p[y]))
        assert float(found.mean_discriminant[t]) == pytest.approx(
            sum(a * a * (h + b) for a, b in zip(p, ell, strict=True))
        )
        for k, beta in enumerate(INVERSE_TEMPERATURES):
            w = [a**beta for a in p]
            mean = sum(a * b for a, b in zip(w, ell, strict=True)) / sum(w)
            variance = sum(a * (b - mean) ** 2 for a, b in zip(w, ell, strict=True)) / sum(w)
            assert float(found.means[t, k]) == pytest.approx(mean)
            assert float(found.variances[t, k]) == pytest.approx(variance)


def test_tokens_that_a_model_masks_out_have_no_part(drawn):
    logits, sampled = drawn
    masked = torch.cat([logits, torch.full((T, 2), -torch.inf, dtype=torch.float64)], 1)
    for a, b in zip(
        vars(token_statistics(masked, sampled)).values(),
        vars(token_statistics(logits, sampled)).values(),
        strict=True,
    ):
        torch.testing.assert_close(a, b)


def test_low_precision_logits_are_widened_first(drawn):
    logits, sampled = drawn
    low = logits.to(torch.bfloat16)
    found, expected = token_statistics(low, sampled), token_statistics(low.float(), sampled)
    assert found.entropies.dtype == torch.float32
    assert torch.equal(found.entropies, expected.entropies)


def test_a_certain_token_has_neither_entropy_nor_variance():
    found = token_statistics(torch.tensor([[1000.0, 0.0, 0.0]]), torch.tensor([0]))
    assert float(found.entropies) == 0
    assert float(found.surprise_variances) == 0
    assert bool(found.means.isfinite().all())


def test_cut_and_joined_again(drawn):
    whole = token_statistics(*drawn)
    parts = whole.split([2, 5])
    assert [len(part) for part in parts] == [2, 5]
    again = TokenStatistics.joined(parts)
    assert all(torch.equal(a, b) for a, b in zip(vars(again).values(), vars(whole).values(), strict=True))


def test_shapes_that_do_not_fit_are_refused(drawn):
    whole = token_statistics(*drawn)
    with pytest.raises(ValueError, match=r"expected \[T\]"):
        TokenStatistics(
            whole.log_probs, whole.ahead, whole.means, whole.variances[:3], whole.mean_discriminant
        )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("vocabulary", [2, V, 151, 5003])
def test_scores_are_the_statistics_to_the_bit(vocabulary, dtype):
    """A step of length 0 changes entropy by exactly 0: before it are statistics, after it scores."""
    generator = torch.Generator().manual_seed(0)
    logits = (4 * torch.randn(T, vocabulary, generator=generator)).to(dtype)
    logits[:, -1] = -torch.inf
    sampled = torch.randint(vocabulary - 1, (T,), generator=generator)
    scores = token_scores(logits, sampled)
    room = room_for(torch.empty(T + 2, vocabulary, dtype=dtype))
    for statistics in (token_statistics(logits, sampled), token_statistics(logits, sampled, room)):
        assert torch.equal(scores.log_probs, statistics.scores.log_probs)
        assert torch.equal(scores.entropies, statistics.scores.entropies)


def test_room_that_is_used_again_leaves_nothing_behind(drawn):
    logits, sampled = drawn
    room = room_for(logits)
    token_statistics(-5 * logits, sampled, room)
    again, fresh = token_statistics(logits[:3], sampled[:3], room), token_statistics(logits[:3], sampled[:3])
    for name, column in vars(fresh).items():
        torch.testing.assert_close(getattr(again, name), column)
