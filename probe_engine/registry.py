"""ParameterRegistry: the one enumeration of parameters, and vectors over it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import overload

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from probe_engine.report import IdMatch


def unwrapped(model: nn.Module) -> nn.Module:
    """The module inside DistributedDataParallel, `torch.compile` and DeepSpeed's engine.

    What shards parameters in its own forward (FSDP1) stays: the module inside can't run without it.
    """
    while True:
        inner = getattr(model, "_orig_mod", None)
        engine = any(base.__name__ == "DeepSpeedEngine" for base in type(model).__mro__)
        if engine or isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
            inner = model.module
        if not isinstance(inner, nn.Module):
            return model
        model = inner


@dataclass(frozen=True)
class ParameterRegistry:
    """Ordered (name, parameter) of a model, tied weights once.

    Built once, from the module that runs the forward, right after wrapping.
    Buffers, gradients, preconditioner, contractions and dot products iterate it.
    """

    names: tuple[str, ...]
    parameters: tuple[nn.Parameter, ...]

    @classmethod
    def of(cls, model: nn.Module) -> ParameterRegistry:
        """Every parameter of `model`; `named_parameters` lists a tied weight once."""
        named = list(unwrapped(model).named_parameters())
        return cls(tuple(n for n, _ in named), tuple(p for _, p in named))

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[tuple[str, nn.Parameter]]:
        return iter(zip(self.names, self.parameters, strict=True))

    @cached_property
    def ids(self) -> tuple[int, ...]:
        """`id(p)` in registry order."""
        return tuple(id(p) for p in self.parameters)

    @cached_property
    def trainable(self) -> ParameterRegistry:
        """Those that require a gradient."""
        return self._where([p.requires_grad for p in self.parameters])

    @cached_property
    def lora(self) -> ParameterRegistry:
        """lora_A, lora_B and a trainable lm_head."""
        return self._where(
            [
                "lora_A" in name or "lora_B" in name or ("lm_head" in name and p.requires_grad)
                for name, p in self
            ]
        )

    @property
    def numel(self) -> int:
        """P, the number of scalars."""
        return sum(p.numel() for p in self.parameters)

    def name_of(self, parameter: nn.Parameter) -> str | None:
        """The name of this very object, None for a stranger."""
        index = self._index.get(id(parameter))
        return None if index is None else self.names[index]

    def verify(self, model: nn.Module) -> IdMatch:
        """Does the live module still hold these objects?"""
        mine = set(self.ids)
        live = {id(p) for p in unwrapped(model).parameters() if p.requires_grad}
        return IdMatch.count(mine, live)

    @cached_property
    def _index(self) -> dict[int, int]:
        return {key: index for index, key in enumerate(self.ids)}

    def _where(self, mask: Sequence[bool]) -> ParameterRegistry:
        kept = [pair for pair, keep in zip(self, mask, strict=True) if keep]
        return ParameterRegistry(tuple(n for n, _ in kept), tuple(p for _, p in kept))


PIECE = 2**18
"""Numbers of a parameter that are gone through at a time: what arithmetic needs beside the parameter itself
then stays small, however large the embedding is."""
BLOCK = 2**12
"""Products of a dot product that are added up before they are widened."""
FEW_BLOCKS = 8
"""Up to so many of them it is quicker to widen what is multiplied."""


class LazyTensors(Sequence[Tensor | None]):
    """One tensor a parameter, made anew whenever it is asked for and kept by nobody.

    What it is made of has to stay as it is.
    """

    def __init__(self, make: Callable[[int], Tensor | None], count: int) -> None:
        self._make, self._count = make, count

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Tensor | None]:
        return map(self._make, range(self._count))

    @overload
    def __getitem__(self, index: int) -> Tensor | None: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[Tensor | None, ...]: ...

    def __getitem__(self, index: int | slice) -> Tensor | tuple[Tensor | None, ...] | None:
        picked = range(self._count)[index]
        return self._make(picked) if isinstance(picked, int) else tuple(map(self._make, picked))


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
    than one parameter of it exists at a time, while it is gone through.
    """

    ids: tuple[int, ...]
    tensors: Sequence[Tensor | None]

    @classmethod
    def lazy(cls, ids: tuple[int, ...], make: Callable[[int], Tensor | None]) -> ParameterVector:
        """A vector whose tensor of the i-th parameter is `make(i)`, whenever it is asked for."""
        return cls(ids, LazyTensors(make, len(ids)))

    def held(self) -> ParameterVector:
        """The same in memory, for who goes through it often."""
        return ParameterVector(self.ids, tuple(self.tensors))

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
        pairs = zip(self.tensors, other.over(self.ids).tensors, strict=True)
        return sum(inner(a, b) for a, b in pairs if a is not None and b is not None)

    def norm(self) -> float:
        """Euclidean norm."""
        return float(sum(inner(t, t) for t in self.tensors if t is not None) ** 0.5)

    def summary(self) -> Summary:
        """Counts, norm, and what is not finite."""
        non_none = non_zero = 0
        total, not_finite = 0.0, []
        for index, tensor in enumerate(self.tensors):
            if tensor is None:
                continue
            square = inner(tensor, tensor)
            non_none += 1
            # A square of float64 may leave its range where the number itself does not.
            non_zero += square != 0 or bool(tensor.any())
            if not math.isfinite(square) and not bool(torch.isfinite(tensor).all()):
                not_finite.append(index)
            total += square
        return Summary(non_none, non_zero, total**0.5, tuple(not_finite))

    def scaled(self, scale: float) -> ParameterVector:
        """`scale ·` this, lazy."""

        def times(index: int) -> Tensor | None:
            mine = self.tensors[index]
            return None if mine is None else mine * scale

        return ParameterVector.lazy(self.ids, times)

    def plus(self, other: ParameterVector, scale: float = 1.0) -> ParameterVector:
        """This `+ scale ·` other, lazy; a tensor that is missing in one of them counts as 0."""
        theirs = other.over(self.ids).tensors

        def added(index: int) -> Tensor | None:
            a, b = self.tensors[index], theirs[index]
            if a is None or b is None:
                return a if b is None else b * scale
            return torch.add(a, b, alpha=scale)

        return ParameterVector.lazy(self.ids, added)

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
    a, b = a.flatten(), b.flatten()
    if len(a) <= PIECE:  # an adapter has hundreds of small tensors: what each costs beside its numbers counts
        return float(dots(a, b))
    pieces = zip(a.split(PIECE), b.split(PIECE), strict=True)
    return float(torch.stack([dots(x, y) for x, y in pieces]).sum())


def dots(a: Tensor, b: Tensor) -> Tensor:
    """Inner products along the last axis, [...] float64, of [..., n] with [..., n] or [n].

    Of long vectors `BLOCK` products are added up in the operands' own precision, then in float64: in float32
    that is off by about 1e-9 of Σ|a·b|, less than the rounding of what is multiplied.
    """
    blocks = a.shape[-1] // BLOCK
    if blocks < FEW_BLOCKS:
        return _vecdot(a.double(), b.double())
    whole = blocks * BLOCK
    cut = (v[..., :whole].unflatten(-1, (blocks, BLOCK)) for v in (a, b))
    rest = _vecdot(a[..., whole:].double(), b[..., whole:].double())
    return rest + _vecdot(*cut).sum(-1, dtype=torch.float64)


def wide(dtype: torch.dtype) -> torch.dtype:
    """float32 or wider: what dot products and steps are computed in."""
    return torch.promote_types(dtype, torch.float32)
