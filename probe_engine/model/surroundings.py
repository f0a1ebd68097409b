"""The same tokens, scored in several surroundings: alone, in a batch, and padded on either side."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from probe_engine.model.teacher_forcing import (
    Layout,
    Side,
    TokenSequence,
    device_of,
    response_log_probs,
    response_logits,
    takes_position_ids,
)
from probe_engine.model.unit_gradients import UnitObjective

LONGEST = 16
"""Tokens of a sequence that are looked at: what padding or neighbours change shows in few."""
SHORTEST = 4
"""Tokens: a prompt, something to score, and something to cut off."""


@dataclass(frozen=True)
class Rows:
    """A sequence, and those beside which it is scored."""

    row: TokenSequence
    equal: TokenSequence
    """As long as `row`"""
    longer: TokenSequence

    @classmethod
    def of(cls, units: Sequence[UnitObjective]) -> Rows | None:
        """The longest responses of two units, cut to one length; None where there are not two to take.

        The later half of a row is scored, prompt tokens or not: the question is a numerical one.
        """
        ranked = [sorted(unit.sequences, key=len, reverse=True) for unit in units[:2]]
        # Different prompts first: responses that are cut short may be the same within a group.
        by_rank = [s[rank] for rank in range(2) for s in ranked if rank < len(s)]
        tokens = [(s.prompt + s.response)[:LONGEST] for s in by_rank if len(s) >= SHORTEST][:2]
        if len(tokens) < 2:
            return None
        width = min(map(len, tokens))
        kept = width - max(1, width // 4)
        split = max(1, kept // 2)
        first, second = tokens

        def cut(row: tuple[int, ...], end: int) -> TokenSequence:
            return TokenSequence(row[:split], row[split:end])

        return cls(cut(second, kept), cut(first, kept), cut(first, width))


@dataclass(frozen=True)
class Surroundings:
    """log π of the same tokens of one sequence, each [K], nats, float64."""

    alone: Tensor
    """by itself"""
    batched: Tensor
    """beside others; unpadded, where padded it is not as it is alone"""
    right: Tensor
    """padded on the right, as the probe pads"""
    left: Tensor
    """padded on the left, as generation and many trainers pad prompts"""
    unplaced: Tensor | None
    """`left` without `position_ids`; None where the model's forward takes none"""
    tokens: int
    """of the row"""


def surroundings(model: nn.Module, rows: Rows, tolerance: float) -> Surroundings:
    """Scores the row in every one of them, without a graph.

    Args:
        model: in eval mode.
        rows: what is scored.
        tolerance: mean |Δ log π|, nats a token, up to which two answers are the same. Beside neighbours and
            padded on either side in one forward, the row answers for all three where nothing moves it; what
            moves it is looked for in forwards of their own.
    """
    alone = _scored(model, [rows.row])
    # The longer row stands first: a model that takes the first row's padding for everybody's is seen too.
    right, left = _log_probs(model, [rows.longer, rows.row, rows.row], ("right", "right", "left"))[1:]
    batched = right
    if not all(_distance(one, alone) <= tolerance for one in (right, left)):
        batched = _scored(model, [rows.equal, rows.row])
        right, left = (_padded(model, rows, side) for side in ("right", "left"))
    return Surroundings(
        alone=alone,
        batched=batched,
        right=right,
        left=left,
        unplaced=_padded(model, rows, "left", placed=False) if takes_position_ids(model) else None,
        tokens=len(rows.row),
    )


def otherwise_padded(model: nn.Module, rows: Rows) -> Tensor:
    """`left` of `Surroundings` with another token in the padding: only who sees it scores otherwise."""
    return _padded(model, rows, "left", pad=rows.longer.response[0] or 1)


def _distance(one: Tensor, other: Tensor) -> float:
    return float((one - other).abs().mean())


def _padded(model: nn.Module, rows: Rows, side: Side, *, placed: bool = True, pad: int = 0) -> Tensor:
    return _scored(model, [rows.longer, rows.row], side, placed=placed, pad=pad)


def _scored(
    model: nn.Module,
    sequences: Sequence[TokenSequence],
    side: Side = "right",
    *,
    placed: bool = True,
    pad: int = 0,
) -> Tensor:
    """log π of the last one's response, [K]."""
    return _log_probs(model, sequences, side, placed=placed, pad=pad)[-1]


def _log_probs(
    model: nn.Module,
    sequences: Sequence[TokenSequence],
    side: Side | Sequence[Side],
    *,
    placed: bool = True,
    pad: int = 0,
) -> list[Tensor]:
    """log π of each one's response, [K]."""
    layout = Layout.of(sequences, device=device_of(model), padding_side=side)
    assert layout.attention_mask is not None
    layout = dataclasses.replace(
        layout, input_ids=layout.input_ids.masked_fill(layout.attention_mask == 0, pad)
    )
    with torch.no_grad():
        log_probs = response_log_probs(response_logits(model, layout, placed=placed), layout)
    return [row[kept].double().cpu() for row, kept in zip(log_probs, layout.mask, strict=True)]
