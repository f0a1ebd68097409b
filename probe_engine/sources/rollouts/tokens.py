"""Raw rollouts to token ids: ids as logged, text as the trainer tokenises it, eos restored."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from probe_engine.errors import ProbeError
from probe_engine.sources.checkpoints.library import library_call
from probe_engine.sources.rollouts.record import BadRow, Prompt, RawRollout, RowError

Ending = Literal["logged", "restored", "assumed", "cut", "lost"]
"""How a response's end came about: as in the logged ids; eos restored to text that ended itself; the same,
but only assumed to have ended itself; cut at the limit; ended itself but has no eos."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """A rollout as token ids."""

    line: int
    group: str | None
    prompt_text: str
    prompt: tuple[int, ...]
    text: str
    tokens: tuple[int, ...]
    reward: float | None
    advantage: float | None
    logprobs: tuple[float, ...] | None
    terminated: bool
    ending: Ending
    from_text: bool
    """Were the response's tokens made from its text?"""
    sampling: Mapping[str, float] = field(default_factory=dict)
    """The sampler's settings, as far as the row says them."""


def tokenised(
    rows: Iterable[RawRollout], tokenizer: Any, eos: Sequence[int], limit: int | None
) -> tuple[list[Rollout], list[BadRow]]:
    """Token ids of every row; rows that the tokenizer refuses are named.

    Args:
        tokenizer: a transformers tokenizer, or None where every row has ids.
        eos: ids that end a response; the first is the one that text lost.
        limit: the trainer's max completion length, tokens, where known: a shorter response ended itself.

    Raises:
        ProbeError: rows hold text and there is no tokenizer.
    """
    prompts: dict[str, tuple[int, ...]] = {}
    rollouts, bad = [], []
    for row in rows:
        try:
            prompt_text = _shown(row.prompt, row.prompt_tokens, tokenizer)
            prompt = row.prompt_tokens
            if not prompt:
                key = repr(row.prompt)
                if key not in prompts:
                    assert row.prompt is not None, "RawRollout has a prompt or its tokens"
                    prompts[key] = prompt_ids(row.prompt, tokenizer)
                prompt = prompts[key]
            rollouts.append(_rollout(row, prompt, prompt_text, tokenizer, eos, limit))
        except RowError as error:
            bad.append(BadRow(row.line, str(error)))
    return rollouts, bad


def prompt_ids(prompt: Prompt, tokenizer: Any) -> tuple[int, ...]:
    """A prompt as trl's GRPOTrainer tokenises it.

    Messages go through the chat template with its generation prompt, without further special tokens;
    a string gets the tokenizer's own special tokens (a bos, for one).

    Raises:
        RowError: the chat template refuses the messages, or nothing is left.
        ProbeError: there is no tokenizer.
    """
    if tokenizer is None:
        raise _no_tokenizer()
    if isinstance(prompt, str):
        ids = _encoded(tokenizer, prompt)
    else:
        messages = [dict(message) for message in prompt]
        # A chat template is a program that comes with the tokenizer.
        with library_call(lambda words: RowError(f"the chat template refuses the messages: {words}")):
            rendered = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        ids = _encoded(tokenizer, rendered, add_special_tokens=False)
    if not ids:
        raise RowError("the prompt has no tokens")
    return ids


def _rollout(
    row: RawRollout,
    prompt: tuple[int, ...],
    prompt_text: str,
    tokenizer: Any,
    eos: Sequence[int],
    limit: int | None,
) -> Rollout:
    if row.response_tokens is not None:
        tokens = row.response_tokens
        ended = row.terminated
        if ended is None:
            ended = tokens[-1] in eos or (limit is not None and len(tokens) < limit)
        lost = ended and bool(eos) and tokens[-1] not in eos
        ending: Ending = "lost" if lost else "logged"
    else:
        tokens, ended, ending = _from_text(row, tokenizer, eos, limit)
    logprobs = row.logprobs
    return Rollout(
        line=row.line,
        group=row.group,
        prompt_text=prompt_text,
        prompt=prompt,
        text=_shown(row.response, tokens, tokenizer),
        tokens=tokens,
        reward=row.reward,
        advantage=row.advantage,
        # Retokenised text need not have the tokens that the log-probabilities belong to.
        logprobs=logprobs if row.response_tokens is not None else None,
        terminated=ended,
        ending=ending,
        from_text=row.response_tokens is None,
        sampling=row.sampling,
    )


def _from_text(
    row: RawRollout, tokenizer: Any, eos: Sequence[int], limit: int | None
) -> tuple[tuple[int, ...], bool, Ending]:
    if tokenizer is None:
        raise _no_tokenizer()
    assert row.response is not None, "RawRollout has a response or its tokens"
    tokens = _encoded(tokenizer, row.response, add_special_tokens=False)
    known = row.terminated is not None or limit is not None
    ended = row.terminated if row.terminated is not None else limit is None or len(tokens) < limit
    if ended and eos and (not tokens or tokens[-1] not in eos):
        return (*tokens, eos[0]), True, "restored" if known else "assumed"
    if not tokens:
        raise RowError("empty response: its text has no tokens, and there is no eos to restore")
    if ended:
        return tokens, True, "logged" if eos else "lost"
    return tokens, False, "cut"


def _encoded(tokenizer: Any, text: str, **options: bool) -> tuple[int, ...]:
    with library_call(lambda words: RowError(f"the tokenizer refuses the text: {words}")):
        return tuple(tokenizer(text=text, **options)["input_ids"])


def _shown(written: Prompt | None, tokens: tuple[int, ...] | None, tokenizer: Any) -> str:
    if isinstance(written, str):
        return written
    if written is not None:
        return "\n".join(f"{message['role']}: {message.get('content', '')}" for message in written)
    if tokenizer is None:
        return ""
    try:
        return str(tokenizer.decode(list(tokens or ()), skip_special_tokens=True))
    except (OverflowError, IndexError, TypeError, ValueError):
        return ""  # ids outside the vocabulary, which is reported as ROLL004


def _no_tokenizer() -> ProbeError:
    return ProbeError(
        "expected a tokenizer, because the rollouts hold text, but the checkpoint has none",
        "Copy the tokenizer's files beside the weights, or log token ids with the rollouts.",
        code="CKPT008",
        commands=("ls CHECKPOINT/tokenizer*",),
    )
