"""ROLL007 on samples of a trained transformer: 128 responses, from itself and from other samplers."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch

from probe_engine.checks.on_policy import samples
from probe_engine.demo.base_model import character_tokenizer, pretrained
from probe_engine.demo.digits import MAX_COMPLETION_LENGTH, draw
from probe_engine.demo.recipe import Recipe
from probe_engine.estimators.on_policy import OnPolicyTest, on_policy
from probe_engine.estimators.token_statistics import TokenStatistics
from probe_engine.model.sampling import left_padded
from probe_engine.model.teacher_forcing import Layout, TokenSequence, response_logits, response_statistics

RESPONSES = 128


class Sampler:
    """Draws responses to sorting problems, and scores them by a model."""

    def __init__(self, steps: int) -> None:
        self.tokenizer = character_tokenizer()
        recipe = Recipe(seed=5, hidden_size=32, pretrain_steps=steps, pretrain_batch=64, pretrain_lr=1e-2)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed)
            self.model: Any = pretrained(recipe, self.tokenizer)

    def draw(self, seed: int, **settings: float) -> list[TokenSequence]:
        problems = draw(RESPONSES // 8, random.Random(seed))
        prompts = [tuple(self.tokenizer(p.prompt)["input_ids"]) for p in problems for _ in range(8)]
        ids, mask = left_padded(prompts, self.tokenizer.pad_token_id)
        neutral = {"temperature": 1.0, "top_p": 1.0, "top_k": 0}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            output = self.model.generate(
                input_ids=ids,
                attention_mask=mask,
                do_sample=True,
                max_new_tokens=MAX_COMPLETION_LENGTH,
                **(neutral | settings),
            )
        eos = self.tokenizer.eos_token_id
        rows = [
            row[: row.index(eos) + 1 if eos in row else None] for row in output[:, ids.shape[1] :].tolist()
        ]
        return [TokenSequence(p, tuple(row)) for p, row in zip(prompts, rows, strict=True)]

    def test(self, sequences: list[TokenSequence]) -> OnPolicyTest:
        layout = Layout.of(sequences, device=torch.device("cpu"))
        with torch.no_grad():
            statistics = response_statistics(response_logits(self.model, layout), layout)
        return on_policy(TokenStatistics.joined(statistics))


@pytest.fixture(scope="module")
def policy() -> Sampler:
    return Sampler(steps=200)


def test_fifty_seeds_of_its_own_samples(policy: Sampler) -> None:
    tests = [policy.test(policy.draw(seed)) for seed in range(50)]
    assert max(abs(t.z) for t in tests) < 4
    assert {samples(t, 1.0).status for t in tests} == {"ok"}
    assert all(abs(t.fit.temperature - 1) < max(0.05, 4 * t.fit.se) for t in tests)


@pytest.mark.parametrize("temperature", [0.7, 1.3])
def test_another_temperature_is_seen_and_fitted(policy: Sampler, temperature: float) -> None:
    for seed in range(5):
        test = policy.test(policy.draw(seed, temperature=temperature))
        found = samples(test, 1.0)
        assert found.status == "warn"
        assert test.z * (temperature - 1) > 0
        assert abs(test.fit.temperature - temperature) < max(0.05, 3 * test.fit.se)


def test_nucleus_sampling_is_seen_and_named(policy: Sampler) -> None:
    for seed in range(5):
        test = policy.test(policy.draw(seed, top_p=0.9))
        found = samples(test, 1.0)
        assert found.status == "warn"
        assert "top-p" in found.message
        assert 0.85 < test.nucleus.top_p < 0.9


def test_another_checkpoint_is_seen(policy: Sampler) -> None:
    earlier = Sampler(steps=100)
    test = policy.test(earlier.draw(0))
    assert samples(test, 1.0).status == "warn"
