"""Batches of random tokens: what is measured does not depend on what they say."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from probe_engine.types import Batch, Group, Response, Unit

GENERATIONS = 4
"""Responses to a prompt."""
PROMPT_SHARE = 1 / 3
"""Of a sequence's tokens."""


def even(vocabulary: int, sequences: int, tokens: int) -> Batch:
    """All sequences equally long."""
    prompt = max(1, int(tokens * PROMPT_SHARE))
    return of_lengths(vocabulary, [tokens] * sequences, prompt)


def of_lengths(vocabulary: int, lengths: Sequence[int], prompt: int) -> Batch:
    """Sequences of these lengths, in groups of GENERATIONS in their order; prompts are equally long."""

    def drawn(count: int) -> tuple[int, ...]:
        return tuple(torch.randint(vocabulary, (count,)).tolist())

    units = []
    for index in range(len(lengths) // GENERATIONS):
        group_lengths = lengths[index * GENERATIONS : (index + 1) * GENERATIONS]
        advantages = torch.randn(GENERATIONS).tolist()
        responses = tuple(
            Response(tokens=drawn(length - prompt), text="", advantage=advantage)
            for length, advantage in zip(group_lengths, advantages, strict=True)
        )
        group = Group(id=f"p{index}", text="", tokens=drawn(prompt), responses=responses)
        units.append(Unit(id=group.id, role="EU"[index % 2], groups=(group,)))
    return Batch(tuple(units), max(lengths) - prompt, "longest response", "dr_grpo", "dr_grpo")
