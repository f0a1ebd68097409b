"""Attention within each of several sequences that stand one behind the other in one row.

transformers looks attention and its masks up by name. While `attention_by_sequence` lasts, what it finds
under `sdpa` is the same but for rows of several sequences: there each has a mask of its own and attends to
itself alone, a response to a shared prompt to that and to itself. No model is changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from functools import partial
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.utils import logging
from transformers.utils.generic import GeneralInterface

from probe_engine.model.packed_row import Row, Segment, Shares
from probe_engine.model.teacher_forcing import takes_position_ids
from probe_engine.registry import unwrapped

NAME = "sdpa"
"""The implementation that can be told of sequences."""
COUNTED_ALONG_THE_ROW = "attn_temperature_tuning"
"""A switch of Llama 4's configuration: queries are scaled by their place in the row from the 8192nd on, which
no short trial sees, whatever `position_ids` says."""

_row: ContextVar[Row | None] = ContextVar("row", default=None)


@dataclass(frozen=True, eq=False)
class Run:
    """Segments that attend in one call: one, or responses of one length to one prompt, side by side."""

    segments: tuple[Segment, ...]
    mask: Tensor | None
    """[1, 1, Q, L], True where a token is seen; None for all that come before. L is Q and the tokens of the
    prompt that they come after"""

    def __len__(self) -> int:
        return sum(map(len, self.segments))


@dataclass(frozen=True, eq=False)
class RowMask:
    """What layers get as the attention mask of a row of several sequences.

    It reaches a layer that is run again in the reverse pass as well, for it is an argument of the layer's.
    """

    row: Row
    runs: tuple[Run, ...]


class _Lent(torch.autograd.Function):
    """A shared prompt's keys or values, [1, H, P, D], as n of its responses get them, [n, H, P, D]."""

    @staticmethod
    def forward(
        ctx: Any, first: Tensor, _second: Tensor, shares: Shares, sequences: tuple[int, ...]
    ) -> Tensor:
        ctx.shares, ctx.sequences = shares, sequences
        return first.expand(len(sequences), -1, -1, -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        by_copy = zip(*(ctx.shares.of(sequence) for sequence in ctx.sequences), strict=True)
        to_copies = (
            torch.tensordot(gradient.new_tensor(shares), gradient, 1)[None] if any(shares) else None
            for shares in by_copy
        )
        return (*to_copies, None, None)


def may_attend_by_sequence(model: nn.Module) -> bool:
    """Whether it is worth a trial: the model can be told of sequences and positions, and would listen."""
    config: Any = getattr(unwrapped(model), "config", None)
    if getattr(config, "_attn_implementation", None) != NAME or not takes_position_ids(model):
        return False
    return not getattr(config.get_text_config(), COUNTED_ALONG_THE_ROW, False)


@contextmanager
def attention_by_sequence() -> Iterator[None]:
    """Inside, forward passes within `one_row_of` and their reverse passes attend by sequence."""
    with _wrapped(ALL_ATTENTION_FUNCTIONS, _attention), _wrapped(ALL_MASK_ATTENTION_FUNCTIONS, _mask):
        yield


@contextmanager
def one_row_of(row: Row) -> Iterator[None]:
    """Inside, the model is given this row, and no mask.

    GPT-2 would warn of padding that is not masked where a sequence at an end of the row has the pad token.
    """
    token, verbosity = _row.set(row), logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        _row.reset(token)


@contextmanager
def _wrapped(functions: GeneralInterface, wrapper: Callable[..., Any]) -> Iterator[None]:
    local = functions._local_mapping
    before = dict(local)
    local[NAME] = partial(wrapper, functions[NAME])
    try:
        yield
    finally:
        local.clear()
        local.update(before)


def _attention(
    plain: Callable[..., Any],
    module: object,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Any,
    *args: Any,
    **kwargs: Any,
) -> Any:
    """[1, H, T, D] each, to [1, T, H, D]."""
    if not isinstance(attention_mask, RowMask):
        return plain(module, query, key, value, attention_mask, *args, **kwargs)
    row, runs = attention_mask.row, attention_mask.runs
    queries, keys, values = (t.split([len(run) for run in runs], 2) for t in (query, key, value))
    of_segments = [t.split(row.lengths, 2) for t in (key, value)]
    outputs = []
    for run, q, k, v in zip(runs, queries, keys, values, strict=True):
        seen = (_seen(row, run, *each) for each in zip((k, v), of_segments, strict=True))
        mask = None if run.mask is None else run.mask.to(q.device)
        output: Tensor = plain(module, _apart(q, run), *seen, mask, *args, **kwargs)[0]
        outputs.append(output.flatten(0, 1)[None])
    return torch.cat(outputs, 1), None


def _apart(own: Tensor, run: Run) -> Tensor:
    """[n, H, T, D] of the [1, H, n·T, D] of a run of n segments."""
    n = len(run.segments)
    return own if n == 1 else own.unflatten(2, (n, -1))[0].transpose(0, 1)


def _seen(row: Row, run: Run, own: Tensor, of_segments: tuple[Tensor, ...]) -> Tensor:
    """Keys or values of a run of n segments, and of the prompt that they come after, [n, H, L, D]."""
    mine, first = _apart(own, run), run.segments[0].prompt
    if first is None:
        return mine
    prompt = of_segments[first].expand(len(mine), -1, -1, -1)
    if prompt.requires_grad:
        sequences = tuple(segment.sequence for segment in run.segments)
        copies = [of_segments[copy] for copy in row.copies[first]]
        prompt = _Lent.apply(*copies, row.shares, sequences)  # type: ignore[no-untyped-call]  # torch leaves `apply` untyped
    return torch.cat([prompt, mine], 2)


def _mask(plain: Callable[..., Tensor | None], *args: Any, **kwargs: Any) -> Any:
    """The model's own pattern (causal, sliding, in chunks), evaluated where each sequence stands.

    Positions that restart make transformers count from each sequence's own first token.
    """
    row = _row.get()
    if row is None:
        return plain(*args, **kwargs)
    T = sum(row.lengths)
    given = {name: kwargs.get(name) for name in ("batch_size", "q_length", "kv_length", "attention_mask")}
    if given != {"batch_size": 1, "q_length": T, "kv_length": T, "attention_mask": None}:
        raise ValueError(f"expected a row of {T} tokens without a mask to attend in, got {given}")
    changes = {"allow_is_causal_skip": False, "allow_is_bidirectional_skip": False}

    def pattern(L: int, end: int) -> Tensor:
        at = {"q_length": L, "kv_length": L, "q_offset": end - L, "kv_offset": end - L}
        mask = plain(*args, **(kwargs | at | changes))
        return torch.ones(1, 1, L, L, dtype=torch.bool).tril() if mask is None else mask

    runs: list[Run] = []
    whole: Tensor | None = None
    for segment, end in zip(row.segments, accumulate(row.lengths), strict=True):
        if segment.prompt is None:
            runs.append(Run((segment,), _none_if_causal(pattern(len(segment), end))))
            whole = None
            continue
        last = runs[-1].segments
        if last[0].prompt == segment.prompt and len(last[0]) == len(segment):
            runs[-1] = replace(runs[-1], segments=(*last, segment))
            continue
        L = segment.start + len(segment)
        if whole is None:  # the longest response to a prompt, right behind it
            whole = pattern(L, end)
        runs.append(Run((segment,), whole[..., segment.start : L, :L]))
    return RowMask(row, tuple(runs))


def _none_if_causal(mask: Tensor) -> Tensor | None:
    """Kernels are told `is_causal` in place of a mask."""
    return None if torch.equal(mask, torch.ones_like(mask).tril()) else mask
