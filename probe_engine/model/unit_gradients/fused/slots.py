"""Which part of a layer's input and output is whose.

N  sequences of a forward pass
T  positions, K of them kept for the logits
M  slots: what has a part of its own, each sequence or, in a row, each segment
U  units, k kinds of gradients: weights of sequences are [k, U, N], 0 where a sequence is another unit's
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from probe_engine.model.packed_row import Row

Parts = Callable[[Tensor], list[Tensor]]
"""Takes some slots' parts out of [..., T or K, ..., d], in their order: [m, t, d] of m that are equally long,
t being the product of all axes between."""


class Slots(Protocol):
    """Of one forward pass."""

    def told(self, shape: torch.Size) -> bool:
        """Whether a tensor of this shape has a place for each position of each slot."""
        ...

    def parts(self, at: Tensor, device: torch.device) -> Parts:
        """Of these slots, by index, of tensors on a device."""
        ...

    def together(self, groups: Sequence[Tensor]) -> Parts:
        """Of groups of slots, each group's parts one behind the other: [1, t, d]. A unit is a group."""
        ...

    def weighted(self, delta: Tensor, weights: Tensor) -> Tensor:
        """Each slot's part times its weight, of [M]."""
        ...

    def units(self, of_sequences: Tensor) -> Tensor:
        """Each slot's unit, [M] of [N]."""
        ...

    def weights(self, of_sequences: Tensor) -> Tensor:
        """What each slot's gradient weighs, [k, U, M], once `share` was told these weights of sequences."""
        ...

    def share(self, of_sequences: Tensor | None) -> None:
        """What sequences weigh where their gradients come together before they reach a layer; None: as much
        as they bring."""
        ...

    def of_sequences(self, of_slots: Tensor) -> Tensor:
        """[N] of [M]."""
        ...

    def foreign(self, sequence: int) -> Tensor:
        """Slots on which S of this sequence does not depend, [M], of 0 and 1."""
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

    def together(self, groups: Sequence[Tensor]) -> Parts:
        """Padding included."""

        def of(tensor: Tensor) -> list[Tensor]:
            return [tensor[group.to(tensor.device)].flatten(0, -2)[None] for group in groups]

        return of

    def weighted(self, delta: Tensor, weights: Tensor) -> Tensor:
        """Row by row."""
        return by_row(delta, weights)

    def units(self, of_sequences: Tensor) -> Tensor:
        """Slots are sequences."""
        return of_sequences

    def weights(self, of_sequences: Tensor) -> Tensor:
        """Slots are sequences."""
        return of_sequences

    def share(self, of_sequences: Tensor | None) -> None:
        """Nothing comes together."""

    def of_sequences(self, of_slots: Tensor) -> Tensor:
        """Slots are sequences."""
        return of_slots

    def foreign(self, sequence: int) -> Tensor:
        """All others."""
        return (torch.arange(self.N) != sequence).float()


@dataclass(frozen=True)
class Runs:
    """[1, ..., T or K, ..., d] of a row of segments."""

    row: Row
    kept: tuple[int, ...]
    """of each sequence's response, K together"""

    def told(self, shape: torch.Size) -> bool:
        """One axis alone can be that of positions."""
        return len(shape) >= 3 and shape[0] == 1 and len(self._axes(shape)) == 1

    def parts(self, at: Tensor, device: torch.device) -> Parts:
        """One by one: views, for segments differ in length."""
        wanted = at.tolist()

        def of(tensor: Tensor) -> list[Tensor]:
            ((axis, lengths),) = self._axes(tensor.shape)
            runs = tensor.split(lengths, axis)
            if lengths is self.kept:
                nothing = tensor.narrow(axis, 0, 0)
                runs = self.row.by_segment(runs, nothing)
            return [runs[i].flatten(1, -2) for i in wanted]

        return of

    def together(self, groups: Sequence[Tensor]) -> Parts:
        """Views: what is a unit's stands together."""

        def of(tensor: Tensor) -> list[Tensor]:
            ((axis, lengths),) = self._axes(tensor.shape)
            found = []
            for group in groups:
                at = group.tolist()
                if lengths is self.kept:
                    segments = (self.row.segments[i].sequence for i in at)
                    at = sorted(i for i in segments if i is not None)
                first = at[0] if at else 0
                assert at == [*range(first, first + len(at))], "a unit's sequences stand together"
                run = tensor.narrow(axis, sum(lengths[:first]), sum(lengths[i] for i in at))
                found.append(run.flatten(1, -2))
            return found

        return of

    def weighted(self, delta: Tensor, weights: Tensor) -> Tensor:
        """Position by position."""
        ((axis, lengths),) = self._axes(delta.shape)
        of_runs = self.of_sequences(weights) if lengths is self.kept else weights
        by_position = of_runs.repeat_interleave(torch.tensor(lengths))
        shape = [1] * delta.dim()
        shape[axis] = -1
        return delta * by_position.to(delta.device, delta.dtype).view(shape)

    def units(self, of_sequences: Tensor) -> Tensor:
        """A prompt is its responses' unit's."""
        return self.row.owners(of_sequences)

    def weights(self, of_sequences: Tensor) -> Tensor:
        """A prompt's copies have one kind each."""
        return self.row.weights(of_sequences)

    def share(self, of_sequences: Tensor | None) -> None:
        """In a prompt."""
        self.row.share(of_sequences)

    def of_sequences(self, of_slots: Tensor) -> Tensor:
        """Of those with responses."""
        return of_slots[list(self.row.places)]

    def foreign(self, sequence: int) -> Tensor:
        """Other segments than it and its prompt."""
        return self.row.foreign(sequence)

    @cached_property
    def _positions(self) -> tuple[tuple[int, tuple[int, ...]], ...]:
        """T and K, and what they are made of."""
        return tuple((sum(lengths), lengths) for lengths in (self.row.lengths, self.kept))

    def _axes(self, shape: Sequence[int]) -> list[tuple[int, tuple[int, ...]]]:
        """Which may be that of positions, and each segment's length along it, or each response's."""
        return [
            (axis, lengths)
            for axis in range(1, len(shape) - 1)
            for total, lengths in self._positions
            if shape[axis] == total
        ]


def by_row(delta: Tensor, weights: Tensor) -> Tensor:
    """[N, ...], each row times its weight."""
    return delta * weights.to(delta.device, delta.dtype).view(-1, *[1] * (delta.dim() - 1))
