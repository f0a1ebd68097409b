"""Sequences of several lengths in one row, one behind the other: nothing is padded, no prompt repeated."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor

from probe_engine.model.packed_attention import one_row_of
from probe_engine.model.packed_row import COPIES, Row
from probe_engine.model.teacher_forcing import Layout, TokenSequence


@dataclass(frozen=True)
class PackedLayout(Layout):
    """One row: N is 1, T all its tokens, K those of all responses. What it sums, it sums by sequence."""

    row: Row
    places: Tensor
    """[K], where in the row the kept positions are, sequence by sequence"""

    @property
    def kept(self) -> Tensor:
        """The positions before each response token."""
        return self.places

    def forward_pass(self) -> AbstractContextManager[None]:
        """No sequence attends to another one."""
        return one_row_of(self.row)

    def of_kept(self, logits: Tensor) -> Tensor:
        """[1, K, V] of logits at all positions."""
        return logits[:, self.places]

    def sums(self, terms: Tensor) -> Tensor:
        """Of each sequence's response, [sequences], float64, of one number a kept position, [1, K]."""
        return torch.stack([run.double().sum() for run in terms[0].split(self.responses)])


def laid_out(
    sequences: Sequence[TokenSequence],
    owners: Sequence[int],
    device: torch.device,
    *,
    packed: bool,
    copies: int = COPIES,
) -> Layout:
    """In one row, where each owner's share their prompts; or each in its own, padded."""
    if not packed:
        return Layout.of(sequences, device=device)
    return in_one_row(sequences, owners, device=device, copies=copies)


def in_one_row(
    sequences: Sequence[TokenSequence], owners: Sequence[int], *, device: torch.device, copies: int = COPIES
) -> PackedLayout:
    """Positions are each sequence's own; `copies` of a shared prompt stand there."""
    row = Row.of(sequences, owners, copies)
    ends = list(accumulate(row.lengths))
    places = [
        ends[place] - len(s.response) - 1 + i
        for s, place in zip(sequences, row.places, strict=True)
        for i in range(len(s.response))
    ]
    targets = torch.tensor([[token for s in sequences for token in s.response]], device=device)
    positions = [torch.arange(s.start, s.start + len(s)) for s in row.segments]
    return PackedLayout(
        input_ids=torch.tensor([[t for s in row.segments for t in s.tokens]], device=device),
        attention_mask=None,
        position_ids=torch.cat(positions)[None].to(device),
        targets=targets,
        mask=torch.ones_like(targets, dtype=torch.bool),
        responses=tuple(len(s.response) for s in sequences),
        row=row,
        places=torch.tensor(places, device=device),
    )
