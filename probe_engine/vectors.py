"""ParameterVector: what is differentiated with respect to all parameters, and inner products of such."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, overload

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

SHARE = 2**20
"""Numbers of a parameter that are gone through at a time: what is made of them for the moment stays small,
however large the embedding is, and need not be fetched from memory again."""
BLOCK = 2**12
"""Products of a dot product that are added up before they are widened."""
FEW_BLOCKS = 8
"""Up to so many of them it is quicker to widen what is multiplied."""


class Share(NamedTuple):
    """A parameter or some of its rows, which lie along its first axis."""

    parameter: int
    """by index in the registry"""
    start: int = 0
    stop: int | None = None
    """None: the whole parameter"""

    @property
    def whole(self) -> bool:
        """Whether it is all of the parameter."""
        return self.stop is None

    def of(self, tensor: Tensor) -> Tensor:
        """A view of the same rows of what has the parameter's shape."""
        return tensor if self.whole else tensor[self.start : self.stop]

    def span(self, like: Tensor) -> slice:
        """Where they lie in what has the parameter's shape, flattened."""
        if self.stop is None:
            return slice(0, like.numel())
        row = like[0].numel()
        return slice(self.start * row, self.stop * row)


def shares(parameter: int, like: Tensor, numbers: int) -> list[Share]:
    """A parameter in runs of rows of about so many numbers; a DTensor whole.

    Args:
        like: of the parameter's shape.
    """
    if like.numel() <= numbers or isinstance(like, DTensor):
        return [Share(parameter)]
    length = len(like)
    step = max(1, numbers * length // like.numel())
    return [Share(parameter, start, min(start + step, length)) for start in range(0, length, step)]


Make = Callable[[Share], Tensor | None]
"""The tensor of a share of a parameter; None where it has no gradient."""


class LazyTensors(Sequence[Tensor | None]):
    """One tensor a parameter, made anew whenever it, or some of its rows, is asked for, and kept by nobody.

    What it is made of, elementwise, has to stay as it is.

    Args:
        make: makes it.
        like: tensors of the same shapes, lazy ones too; where there is none the parameter is made whole.
    """

    def __init__(self, make: Make, like: Sequence[Tensor | None]) -> None:
        self.make, self.like = make, like

    def __len__(self) -> int:
        return len(self.like)

    def __iter__(self) -> Iterator[Tensor | None]:
        return map(self.make, map(Share, range(len(self))))

    @overload
    def __getitem__(self, index: int) -> Tensor | None: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[Tensor | None, ...]: ...

    def __getitem__(self, index: int | slice) -> Tensor | tuple[Tensor | None, ...] | None:
        picked = range(len(self))[index]
        return (
            self.make(Share(picked)) if isinstance(picked, int) else tuple(map(self.make, map(Share, picked)))
        )


def share_of(tensors: Sequence[Tensor | None], share: Share) -> Tensor | None:
    """These rows of one of the tensors: made, or a view."""
    if isinstance(tensors, LazyTensors):
        return tensors.make(share)
    tensor = tensors[share.parameter]
    return None if tensor is None else share.of(tensor)


def all_shares(tensors: Sequence[Tensor | None]) -> Iterator[Share]:
    """What to ask `share_of` for to go through all of them."""
    for index in range(len(tensors)):
        like = tensors
        while isinstance(like, LazyTensors):
            like = like.like
        tensor = like[index]
        yield from [Share(index)] if tensor is None else shares(index, tensor, SHARE)


@dataclass(frozen=True)
class Summary:
    """What a vector is, by one pass over it: a lazy one is made anew for each."""

    non_none: int
    """How many parameters have a gradient."""
    non_zero: int
    """How many have one that is not exactly 0."""
    norm: float
    """Euclidean"""
    not_finite: tuple[int, ...]
    """Parameters, by index, whose gradient holds NaN or infinity."""


@dataclass(frozen=True)
class ParameterVector:
    """A vector of shape [P]: one tensor for each parameter of a registry, None for a missing gradient.

    `ids` says for which parameter objects it was built, so that a re-wrapped model is noticed.
    Gradients and their sums are held in memory. What is made of them (multiples, sums, P·v) is lazy: no more
    than a share of one parameter of it need exist at a time, while it is gone through.
    """

    ids: tuple[int, ...]
    tensors: Sequence[Tensor | None]

    def made(self, make: Make) -> ParameterVector:
        """A vector over the same parameters of which each share is made, elementwise, when asked for."""
        return ParameterVector(self.ids, LazyTensors(make, self.tensors))

    def held(self) -> ParameterVector:
        """The same in memory, for who goes through it often."""
        return ParameterVector(self.ids, tuple(self.tensors))

    def share(self, share: Share) -> Tensor | None:
        """Of one parameter, or some rows of it."""
        return share_of(self.tensors, share)

    @property
    def shares(self) -> Iterator[Share]:
        """What to ask for to go through all of it."""
        return all_shares(self.tensors)

    @property
    def non_none(self) -> int:
        """How many parameters have a gradient."""
        return sum(t is not None for t in self.tensors)

    @property
    def non_zero(self) -> int:
        """How many parameters have a gradient that is not exactly 0."""
        return sum(t is not None and bool(t.any()) for t in self.tensors)

    def dot(self, other: ParameterVector) -> float:
        """Inner product, accumulated in float64; of shards over all ranks, which must all call it."""
        other = other.over(self.ids)
        pairs = ((self.share(share), other.share(share)) for share in self.shares)
        return sum(inner(a, b) for a, b in pairs if a is not None and b is not None)

    def norm(self) -> float:
        """Euclidean norm."""
        tensors = map(self.share, self.shares)
        return float(sum(inner(t, t) for t in tensors if t is not None) ** 0.5)

    def summary(self) -> Summary:
        """Counts, norm, and what is not finite."""
        non_none, non_zero, not_finite = set[int](), set[int](), set[int]()
        total = 0.0
        for share in self.shares:
            tensor = self.share(share)
            if tensor is None:
                continue
            square = inner(tensor, tensor)
            non_none.add(share.parameter)
            # A square of float64 may leave its range where the number itself does not.
            if square != 0 or bool(tensor.any()):
                non_zero.add(share.parameter)
            if not math.isfinite(square) and not bool(torch.isfinite(tensor).all()):
                not_finite.add(share.parameter)
            total += square
        return Summary(len(non_none), len(non_zero), total**0.5, tuple(sorted(not_finite)))

    def scaled(self, scale: float) -> ParameterVector:
        """`scale ·` this, lazy."""

        def times(share: Share) -> Tensor | None:
            mine = self.share(share)
            return None if mine is None else mine * scale

        return self.made(times)

    def plus(self, other: ParameterVector, scale: float = 1.0) -> ParameterVector:
        """This `+ scale ·` other, lazy; a tensor that is missing in one of them counts as 0."""
        theirs = other.over(self.ids)

        def added(share: Share) -> Tensor | None:
            a, b = self.share(share), theirs.share(share)
            if a is None or b is None:
                return a if b is None else b * scale
            return torch.add(a, b, alpha=scale)

        return self.made(added)

    def over(self, ids: tuple[int, ...]) -> ParameterVector:
        """This very vector.

        Raises:
            ValueError: it is over other parameter objects than those with these `ids`.
        """
        if self.ids != ids:
            raise ValueError("vectors over different parameter objects: was the model re-wrapped?")
        return self


_vecdot: Callable[[Tensor, Tensor], Tensor] = torch.linalg.vecdot


def inner(a: Tensor, b: Tensor) -> float:
    """Inner product of two tensors of one shape, as `dots` accumulates it; of shards over all ranks."""
    if isinstance(a, DTensor):
        # What cuts a tensor into blocks can't cut an uneven shard.
        return float((a.double() * b.double()).sum().full_tensor())  # type: ignore[attr-defined]  # the sum is a DTensor as well
    return float(dots(a.flatten(), b.flatten()))


def dots(a: Tensor, b: Tensor) -> Tensor:
    """Inner products along the last axis, float64: of [..., n] with [..., n], [...]; of [m, n] with [n], [m].

    Of long vectors `BLOCK` products are added up in the operands' own precision, then in float64: in float32
    that is off by about 1e-9 of Σ|a·b|, less than the rounding of what is multiplied.
    """
    blocks = a.shape[-1] // BLOCK
    if blocks < FEW_BLOCKS:
        return _vecdot(a.double(), b.double())
    whole = blocks * BLOCK
    cut_a, cut_b = (v[..., :whole].unflatten(-1, (blocks, BLOCK)) for v in (a, b))
    if a.dim() > b.dim():  # a product of matrices: `_vecdot` would copy b for each of a
        in_blocks: Tensor = (cut_b[:, None] @ cut_a.permute(1, 2, 0)).squeeze(1).T
    else:
        in_blocks = _vecdot(cut_a, cut_b)
    rest: Tensor = _vecdot(a[..., whole:].double(), b[..., whole:].double())
    return rest + in_blocks.sum(-1, dtype=torch.float64)


def wide(dtype: torch.dtype) -> torch.dtype:
    """float32 or wider: what dot products and steps are computed in."""
    return torch.promote_types(dtype, torch.float32)
