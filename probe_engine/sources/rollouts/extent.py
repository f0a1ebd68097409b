"""How many are the rollouts of a run, and how long? Their beginning tells, before a model is loaded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from probe_engine.sources.rollouts.live import live_source
from probe_engine.sources.rollouts.locate import located
from probe_engine.sources.rollouts.prompts import PromptRow, read_prompts
from probe_engine.sources.rollouts.read import read_head
from probe_engine.sources.rollouts.record import RowError
from probe_engine.sources.rollouts.settings import (
    DEFAULT_LENGTH,
    Trainer,
    completion_limit,
    num_generations,
)
from probe_engine.sources.rollouts.tokens import prompt_ids, tokenised
from probe_engine.spec import RunSpec
from probe_engine.types import Extent

LOOKED_AT = 64
"""Rows whose tokens are counted."""


def rollouts_extent(spec: RunSpec, trainer: Trainer, step: int | None, tokenizer: Any) -> Extent:
    """Of the rollouts that the run will read or sample.

    Args:
        spec: the options.
        trainer: the trainer's arguments.
        step: of the checkpoint, where it is known.
        tokenizer: a transformers tokenizer, or None where the rows hold ids.

    Raises:
        ProbeError: there are none, they can't be read (ROLL013, ROLL017), or they hold text and there is no
            tokenizer (CKPT008).
    """
    limit = completion_limit(spec, trainer)[0]
    if spec.prompts is not None:
        prompts, _ = read_prompts(Path(spec.prompts))
        count = len(prompts[: spec.max_prompts]) * spec.num_generations
        return Extent(count, _longest(_prompts(prompts, tokenizer)), limit or DEFAULT_LENGTH)
    head, count = read_head(located(spec, step).path, LOOKED_AT)
    if spec.max_prompts is not None:
        count = min(count, spec.max_prompts * (num_generations(trainer) or spec.num_generations))
    rows, _ = tokenised(head.rows, tokenizer, (), limit)
    return Extent(count, _longest(row.prompt for row in rows), _longest(row.tokens for row in rows))


def live_extent(batch: object, tokenizer: Any) -> Extent:
    """Of a live batch that is no `Batch`.

    Raises:
        ProbeError: it is none that can be read (ROLL013), or needs a tokenizer (CKPT008).
    """
    rows, _ = tokenised(live_source(batch).rows, tokenizer, (), None)
    return Extent(len(rows), _longest(row.prompt for row in rows), _longest(row.tokens for row in rows))


def _prompts(rows: Sequence[PromptRow], tokenizer: Any) -> Iterator[tuple[int, ...]]:
    for row in islice(rows, LOOKED_AT):
        try:
            yield prompt_ids(row.prompt, tokenizer)
        except RowError:  # reported where the prompts are sampled from
            continue


def _longest(sequences: Iterator[tuple[int, ...]]) -> int:
    return max(map(len, sequences), default=0)
