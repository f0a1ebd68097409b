"""Attention within each of several sequences that stand one behind the other in one row.

transformers looks attention and its masks up by name. While `attention_by_sequence` lasts, what it finds
under `sdpa` is the same but for rows of several sequences: there each has a mask of its own and attends to
itself alone, a response to a shared prompt to that and to itself. No model is changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
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

from probe_engine.model.packed_row import COPIES, Row, Shares
from probe_engine.model.teacher_forcing import takes_position_ids
from probe_engine.registry import unwrapped

NAME = "sdpa"
"""The implementation that can be told of sequences."""
COUNTED_ALONG_THE_ROW = "attn_temperature_tuning"
"""A switch of Llama 4's configuration: queries are scaled by their place in the row from the 8192nd on, which
no short trial sees, whatever `position_ids` says."""

_row: ContextVar[Row | None] = ContextVar("row", default=None)


@dataclass(frozen=True, eq=False)
class RowMask:
    """What layers get as the attention mask of a row of several sequences.

    It reaches a layer that is run again in the reverse pass as well, for it is an argument of the layer's.
    """

    row: Row
    masks: tuple[Tensor | None, ...]
    """[1, 1, Q, L] of each segment, True where a token is seen; None for all that come before. L is Q and the
    tokens of the prompt that it comes after"""


class _Lent(torch.autograd.Function):
    """A shared prompt's keys or values, as one of its responses gets them."""

    @staticmethod
    def forward(ctx: Any, first: Tensor, _second: Tensor, shares: Shares, sequence: int) -> Tensor:
        ctx.shares, ctx.sequence = shares, sequence
        return first.view_as(first)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        shares = ctx.shares.of(ctx.sequence)
        return (*(gradient * share if share else None for share in shares), None, None)


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
    row = attention_mask.row
    queries, keys, values = (t.split(row.lengths, 2) for t in (query, key, value))
    outputs = []
    for place, (q, mask) in enumerate(zip(queries, attention_mask.masks, strict=True)):
        k, v = (_seen(row, place, of_segments) for of_segments in (keys, values))
        here = None if mask is None else mask.to(q.device)
        outputs.append(plain(module, q, k, v, here, *args, **kwargs)[0])
    return torch.cat(outputs, 1), None


def _seen(row: Row, place: int, of_segments: tuple[Tensor, ...]) -> Tensor:
    """Keys or values of a segment, and of the prompt that it comes after."""
    segment, own = row.segments[place], of_segments[place]
    if segment.prompt is None:
        return own
    prompt = of_segments[segment.prompt]
    if prompt.requires_grad:
        copies = of_segments[segment.prompt : segment.prompt + COPIES]
        prompt = _Lent.apply(*copies, row.shares, segment.sequence)  # type: ignore[no-untyped-call]  # torch leaves `apply` untyped
    return torch.cat([prompt, own], 2)


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

    masks: list[Tensor | None] = []
    whole: Tensor | None = None
    for segment, end in zip(row.segments, accumulate(row.lengths), strict=True):
        if segment.prompt is None:
            masks.append(_none_if_causal(pattern(len(segment), end)))
            whole = None
            continue
        L = segment.start + len(segment)
        if whole is None:  # the longest response to a prompt, right behind it
            whole = pattern(L, end)
        masks.append(whole[..., segment.start : L, :L])
    return RowMask(row, tuple(masks))


def _none_if_causal(mask: Tensor) -> Tensor | None:
    """Kernels are told `is_causal` in place of a mask."""
    return None if torch.equal(mask, torch.ones_like(mask).tril()) else mask
