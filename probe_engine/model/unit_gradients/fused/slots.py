"""Which part of a layer's input and output is which sequence's.

N  sequences of a forward pass
T  positions, K of them kept for the logits
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

Parts = Callable[[Tensor], list[Tensor]]
"""Takes some sequences' parts out of [..., T or K, ..., d], in their order: [n, t, d] of n that are equally
long, t being the product of all axes between."""


class Slots(Protocol):
    """Of one forward pass."""

    def told(self, shape: torch.Size) -> bool:
        """Whether a tensor of this shape has a place for each position of each sequence."""
        ...

    def parts(self, at: Tensor, device: torch.device) -> Parts:
        """Of these sequences, by index, of tensors on a device."""
        ...

    def weighted(self, delta: Tensor, weights: Tensor) -> Tensor:
        """Each sequence's part times its weight, of [N]."""
        ...


@dataclass(frozen=True)
class Rows:
    """[N, ..., T or K, ..., d] of a padded rectangle; `packing` sees to it that N is not T."""

    N: int
    T: int
    K: int

    def told(self, shape: torch.Size) -> bool:
        """One row a sequence."""
        return len(shape) >= 3 and shape[0] == self.N and bool({self.T, self.K} & {*shape[1:-1]})

    def parts(self, at: Tensor, device: torch.device) -> Parts:
        """All at once, padding included: δ is 0 there."""
        index = at.to(device)

        def of(tensor: Tensor) -> list[Tensor]:
            return [(tensor if len(index) == len(tensor) else tensor[index]).flatten(1, -2)]

        return of

    def weighted(self, delta: Tensor, weights: Tensor) -> Tensor:
        """Row by row."""
        return by_row(delta, weights)


@dataclass(frozen=True)
class Runs:
    """[1, ..., T or K, ..., d] of sequences one behind the other."""

    tokens: tuple[int, ...]
    """of each sequence, T together"""
    kept: tuple[int, ...]
    """of each response, K together"""

    def told(self, shape: torch.Size) -> bool:
        """One axis alone can be that of positions."""
        return len(shape) >= 3 and shape[0] == 1 and len(self._axes(shape)) == 1

    def parts(self, at: Tensor, device: torch.device) -> Parts:
        """One by one: views, for sequences differ in length."""
        wanted = at.tolist()

        def of(tensor: Tensor) -> list[Tensor]:
            ((axis, lengths),) = self._axes(tensor.shape)
            runs = tensor.split(lengths, axis)
            return [runs[i].flatten(1, -2) for i in wanted]

        return of

    def weighted(self, delta: Tensor, weights: Tensor) -> Tensor:
        """Position by position."""
        ((axis, lengths),) = self._axes(delta.shape)
        by_position = weights.repeat_interleave(torch.tensor(lengths))
        shape = [1] * delta.dim()
        shape[axis] = -1
        return delta * by_position.to(delta.device, delta.dtype).view(shape)

    def _axes(self, shape: Sequence[int]) -> list[tuple[int, tuple[int, ...]]]:
        """Which may be that of positions, and each sequence's length along it."""
        return [
            (axis, lengths)
            for axis in range(1, len(shape) - 1)
            for lengths in (self.tokens, self.kept)
            if shape[axis] == sum(lengths)
        ]


def by_row(delta: Tensor, weights: Tensor) -> Tensor:
    """[N, ...], each row times its weight."""
    return delta * weights.to(delta.device, delta.dtype).view(-1, *[1] * (delta.dim() - 1))
