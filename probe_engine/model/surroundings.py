"""The same tokens, scored in several surroundings: alone, in a batch, and padded on either side."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from probe_engine.model.teacher_forcing import (
    Layout,
    TokenSequence,
    device_of,
    response_log_probs,
    response_logits,
    takes_position_ids,
)
from probe_engine.model.unit_gradients import UnitObjective

ROWS = 2
LONGEST = 64
"""Tokens of a sequence that are looked at: what padding or neighbours change shows in few."""
SHORTEST = 4
"""Tokens: a prompt, something to score, and something to cut off."""


@dataclass(frozen=True)
class Rows:
    """Sequences of one length, and a longer one beside which they are padded."""

    equal: tuple[TokenSequence, ...]
    longer: TokenSequence

    @classmethod
    def of(cls, units: Sequence[UnitObjective]) -> Rows | None:
        """The longest responses of a few units, cut to one length; None where there are not two to take.

        The later half of a row is scored, prompt tokens or not: the question is a numerical one.
        """
        ranked = [sorted(unit.sequences, key=len, reverse=True) for unit in units[:ROWS]]
        # Different prompts first: responses that are cut short may be the same within a group.
        by_rank = [s[rank] for rank in range(ROWS) for s in ranked if rank < len(s)]
        tokens = [(s.prompt + s.response)[:LONGEST] for s in by_rank if len(s) >= SHORTEST][:ROWS]
        if len(tokens) < 2:
            return None
        width = min(map(len, tokens))
        kept = width - max(1, width // 4)
        split = max(1, kept // 2)
        return cls(
            tuple(TokenSequence(t[:split], t[split:kept]) for t in tokens),
            TokenSequence(tokens[0][:split], tokens[0][split:width]),
        )


@dataclass(frozen=True)
class Surroundings:
    """log π of the same tokens, each [N, K], nats, float64."""

    alone: Tensor
    """one sequence at a time"""
    batched: Tensor
    """all at once; they are of one length, so nothing is padded"""
    right: Tensor
    """padded on the right, as the probe pads"""
    left: Tensor
    """padded on the left, as generation and many trainers pad prompts"""
    unplaced: Tensor | None
    """`left` without `position_ids`; None where the model's forward takes none"""
    tokens: int
    """of a row"""


def surroundings(model: nn.Module, rows: Rows) -> Surroundings:
    """Scores the rows in every one of them: N + 4 short forwards without a graph."""
    return Surroundings(
        alone=torch.cat([_scored(model, [row]) for row in rows.equal]),
        batched=_scored(model, rows.equal),
        right=_padded(model, rows, "right"),
        left=_padded(model, rows, "left"),
        unplaced=_padded(model, rows, "left", placed=False) if takes_position_ids(model) else None,
        tokens=len(rows.equal[0]),
    )


def otherwise_padded(model: nn.Module, rows: Rows) -> Tensor:
    """`left` of `Surroundings` with another token in the padding: only who sees it scores otherwise."""
    return _padded(model, rows, "left", pad=rows.longer.response[0] or 1)


def _padded(
    model: nn.Module, rows: Rows, side: Literal["left", "right"], *, placed: bool = True, pad: int = 0
) -> Tensor:
    # The longer row stands first: a model that takes the first row's padding for everybody's is seen too.
    return _scored(model, (rows.longer, *rows.equal), side, placed=placed, pad=pad)[1:]


def _scored(
    model: nn.Module,
    sequences: Sequence[TokenSequence],
    side: Literal["left", "right"] = "right",
    *,
    placed: bool = True,
    pad: int = 0,
) -> Tensor:
    """log π of the first tokens of each response, as many as the last one has, [N, K]."""
    layout = Layout.of(sequences, device=device_of(model), padding_side=side)
    layout = dataclasses.replace(
        layout, input_ids=layout.input_ids.masked_fill(layout.attention_mask == 0, pad)
    )
    with torch.no_grad():
        log_probs = response_log_probs(response_logits(model, layout, placed=placed), layout)
    count = len(sequences[-1].response)
    rows = [row[kept][:count] for row, kept in zip(log_probs, layout.mask, strict=True)]
    return torch.stack(rows).double().cpu()
