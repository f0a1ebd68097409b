"""What the readers hand on: one raw rollout a row, before any tokeniser has seen it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

SAMPLING = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")
"""What a sampler does to the policy's distribution, in the words of trl, vLLM and transformers."""
Message = Mapping[str, Any]
Prompt = str | tuple[Message, ...]


class RowError(ValueError):
    """A row that can't be used; the text says what was expected and what came."""


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that was left out, and why. `line` counts from 1 (rows of a table too)."""

    line: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RawRollout:
    """One response with what was logged about it. Token ids beat text where both are there.

    Raises:
        RowError: no prompt, no response, an empty response, or logprobs that don't match the tokens.
    """

    line: int
    prompt: Prompt | None = None
    prompt_tokens: tuple[int, ...] | None = None
    response: str | None = None
    response_tokens: tuple[int, ...] | None = None
    reward: float | None = None
    advantage: float | None = None
    logprobs: tuple[float, ...] | None = None
    """Behaviour log-probabilities, nats, one for each of `response_tokens`."""
    terminated: bool | None = None
    """Did the response end itself? None where the log doesn't say."""
    step: int | None = None
    group: str | None = None
    """Rows with the same key answer the same prompt; None groups by the prompt itself."""
    sampling: Mapping[str, float] = field(default_factory=dict)
    """The sampler's settings, of `SAMPLING`, as far as the row says them."""

    def __post_init__(self) -> None:
        if self.prompt is None and not self.prompt_tokens:
            raise RowError("expected a prompt or its tokens, got neither")
        if self.response is None and self.response_tokens is None:
            raise RowError("expected a response or its tokens, got neither")
        if self.response_tokens == ():
            raise RowError("empty response: no tokens, not even an eos")
        if self.response_tokens is None and self.response == "" and not self.terminated:
            raise RowError('empty response; if the model ended at once, say "terminated": true')
        if (
            self.logprobs is not None
            and self.response_tokens is not None
            and len(self.logprobs) != len(self.response_tokens)
        ):
            raise RowError(
                f"expected {len(self.response_tokens)} logprobs, one for each token, got {len(self.logprobs)}"
            )


@dataclass(frozen=True, kw_only=True)
class RolloutSource:
    """All rows of one place, in order."""

    path: str
    format: str
    rows: tuple[RawRollout, ...]
    bad: tuple[BadRow, ...] = ()
    blocks: bool = False
    """Groups are consecutive rows of one prompt (TRL), not all rows of one prompt."""
    notes: tuple[str, ...] = ()
    """How columns were read, what was set aside."""
    step: int | None = None
    """The training step that these rollouts belong to, as far as known."""
    sampled_here: bool = False
