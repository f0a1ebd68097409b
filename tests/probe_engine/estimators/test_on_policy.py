"""method.md (20): exact where all sequences can be listed, and on samples of samplers that are known."""

from __future__ import annotations

import math

import pytest
import torch
from oracles.enumeration import EOS, Enumerable
from torch import Tensor

from probe_engine.estimators.on_policy import fitted_nucleus, fitted_temperature, on_policy, z_score
from probe_engine.estimators.token_statistics import TokenStatistics, token_statistics


def of_sequences(model: Enumerable, context: int) -> list[TokenStatistics]:
    """The statistics of every sequence that a context can have."""
    V = model.vocabulary
    logits = (model.theta.view(V, V) + model.offsets)[context]
    found = []
    for sequence in model.listed:
        previous = torch.tensor((EOS, *sequence[:-1]))
        found.append(token_statistics(logits[torch.arange(len(sequence)), previous], torch.tensor(sequence)))
    return found


@pytest.mark.parametrize("seed", range(3))
def test_surprises_are_martingale_differences_with_the_variance_that_is_claimed(seed: int) -> None:
    model = Enumerable(seed=seed)  # cut at three tokens: truncation is a stopping rule like another
    for context in range(model.contexts):
        sequences = of_sequences(model, context)
        p = model.probabilities[context]
        surplus = torch.stack([(-s.log_probs - s.entropies).sum() for s in sequences])
        variance = torch.stack([s.surprise_variances.sum() for s in sequences])
        assert float(p @ surplus) == pytest.approx(0, abs=1e-13)
        assert float(p @ surplus**2) == pytest.approx(float(p @ variance), rel=1e-12)


@pytest.mark.parametrize("q", [0.3, 0.6, 0.9])
def test_the_part_of_a_token_beyond_q_has_expectation_one_minus_q(q: float) -> None:
    """What `fitted_nucleus` counts with: exact for every distribution, without a sort."""
    logits = 2 * torch.randn(40, 9, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    p = logits.softmax(-1)
    expected = torch.zeros(40, dtype=torch.float64)
    for token in range(9):
        found = token_statistics(logits, torch.full((40,), token))
        beyond = ((found.ahead + p[:, token] - q) / p[:, token]).clamp(0, 1)
        expected += p[:, token] * beyond
    torch.testing.assert_close(expected, torch.full_like(expected, 1 - q))


def drawn(
    seed: int, *, temperature: float = 1.0, top_p: float = 1.0, tokens: int = 1500, vocabulary: int = 200
) -> TokenStatistics:
    """Tokens of random distributions, sharp ones and flat ones, drawn by a sampler of these settings."""
    generator = torch.Generator().manual_seed(seed)
    sharpness = 8 * torch.rand(tokens, 1, generator=generator, dtype=torch.float64)
    logits = sharpness * torch.randn(tokens, vocabulary, generator=generator, dtype=torch.float64)
    p = nucleus((logits / temperature).softmax(-1), top_p)
    return token_statistics(logits, torch.multinomial(p, 1, generator=generator).squeeze(-1))


def nucleus(p: Tensor, q: float) -> Tensor:
    """What top-p keeps: likeliest first, until their mass is q."""
    ordered, index = p.sort(-1, descending=True)
    kept = torch.where(ordered.cumsum(-1) - ordered < q, ordered, 0.0)
    return torch.zeros_like(p).scatter(-1, index, kept)


def test_z_is_standard_normal_on_the_policys_own_samples() -> None:
    z = torch.tensor([z_score(drawn(seed, tokens=400)) for seed in range(200)])
    assert float(z.abs().max()) < 4
    assert abs(float(z.mean())) < 4 / 200**0.5
    assert float(z.std()) == pytest.approx(1, abs=0.2)


@pytest.mark.parametrize("temperature", [0.5, 0.7, 0.9, 1.0, 1.1, 1.3, 1.8])
def test_the_fitted_temperature_is_the_samplers(temperature: float) -> None:
    errors = []
    for seed in range(8):
        fit = fitted_temperature(drawn(seed, temperature=temperature))
        errors.append((fit.temperature - temperature) / fit.se)
    assert max(map(abs, errors)) < 4
    assert abs(sum(errors) / len(errors)) < 4 / len(errors) ** 0.5


def test_the_gain_is_that_of_the_likelihood_itself() -> None:
    generator = torch.Generator().manual_seed(3)
    logits = 3 * torch.randn(600, 50, generator=generator, dtype=torch.float64)
    sampled = torch.multinomial((logits / 0.7).softmax(-1), 1, generator=generator).squeeze(-1)
    fit = fitted_temperature(token_statistics(logits, sampled))

    def log_likelihood(temperature: float) -> float:
        return float((logits / temperature).log_softmax(-1).gather(-1, sampled[:, None]).sum())

    assert fit.gain == pytest.approx(log_likelihood(fit.temperature) - log_likelihood(1.0), rel=0.01)
    neighbours = [log_likelihood(fit.temperature * f) for f in (0.97, 1.03)]
    assert log_likelihood(fit.temperature) > max(neighbours)


@pytest.mark.parametrize("q", [0.8, 0.9, 0.95])
def test_the_nucleus_and_what_lies_outside_of_it(q: float) -> None:
    for seed in range(5):
        statistics = drawn(seed, top_p=q)
        fit = fitted_nucleus(statistics)
        assert q - 0.02 < fit.top_p < q
        assert fit.excluded_mass > 4 * fit.se
        assert fit.gain > fitted_temperature(statistics).gain, "a cut explains these samples best"


def test_a_temperature_is_not_taken_for_a_cut() -> None:
    for temperature in (0.5, 0.7):
        statistics = drawn(0, temperature=temperature)
        assert fitted_temperature(statistics).gain > fitted_nucleus(statistics).gain


def test_nothing_is_excluded_from_the_policys_own_samples() -> None:
    for seed in range(30):
        fit = fitted_nucleus(drawn(seed))
        assert fit.excluded_mass < 4 * fit.se
        assert fit.top_p > 0.98


def test_greedy_samples_have_an_empty_nucleus_and_the_lowest_temperature() -> None:
    logits = 2 * torch.randn(300, 20, generator=torch.Generator().manual_seed(4))
    test = on_policy(token_statistics(logits, logits.argmax(-1)))
    assert test.nucleus.top_p == 0
    assert test.fit.temperature == pytest.approx(1 / 3)
    assert test.nucleus.gain > test.fit.gain
    assert test.z < -4


def test_a_policy_without_entropy_has_no_z() -> None:
    logits = torch.tensor([[1000.0, 0.0]]).repeat(5, 1)
    test = on_policy(token_statistics(logits, torch.zeros(5, dtype=torch.long)))
    assert math.isnan(test.z)
    assert math.isnan(test.fit.se)


def test_one_rare_token_of_a_sharp_policy_moves_z_but_not_the_likelihood() -> None:
    """Why ROLL007 asks for both: e^−12 happens once in 160,000 tokens, and z alone then says 9."""
    logits = torch.tensor([0.0, -12.0], dtype=torch.float64).repeat(2000, 1)
    sampled = torch.zeros(2000, dtype=torch.long)
    sampled[0] = 1
    test = on_policy(token_statistics(logits, sampled))
    assert test.z > 4
    assert test.fit.gain < 8
