"""Vectors of all units over the parameters, kept side by side."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from probe_engine.registry import ParameterRegistry
from probe_engine.vectors import Share, wide


class KeptVectors:
    """A vector [P] for each unit, in one tensor [units, numbers] for each dtype of the parameters.

    A tensor for each unit and parameter would be tens of thousands, each rounded up to pages or lying between
    what passes, whose room nobody could use again. On a CPU room is taken page by page, as vectors come.

    Args:
        registry: the parameters.
        units: how many vectors there will be.
        device: where they are kept.
    """

    def __init__(self, registry: ParameterRegistry, units: int, device: torch.device) -> None:
        sizes = Counter[torch.dtype]()
        self._places: list[tuple[torch.dtype, int]] = []
        for parameter in registry.parameters:
            dtype = wide(parameter.dtype)
            self._places.append((dtype, sizes[dtype]))
            sizes[dtype] += parameter.numel()
        self._parameters = registry.parameters
        self._blocks = {
            dtype: torch.empty(units, size, device=device, dtype=dtype) for dtype, size in sizes.items()
        }
        self._came = [bytearray(len(registry)) for _ in range(units)]
        """Whether something has, by unit and parameter."""

    def put(self, share: Share, units: Sequence[int], parts: Tensor) -> None:
        """Takes in a copy of a share of these units' vectors, [units, *share's shape]."""
        columns = self._columns(share)
        for unit, part in zip(units, parts.to(columns.device), strict=True):
            columns[unit].copy_(part.flatten())
            self._came[unit][share.parameter] = True

    def rows(self, units: slice) -> Iterator[Tensor]:
        """Vectors of units of which all has come, [units, numbers] of each block: 0 where nothing has."""
        for unit in range(units.start, units.stop):
            for parameter, came in enumerate(self._came[unit]):
                if not came:
                    self._columns(Share(parameter))[unit].zero_()
                    self._came[unit][parameter] = True
        yield from (block[units] for block in self._blocks.values())

    def share(self, share: Share, units: int) -> Tensor:
        """Of the first so many units, `rows` of which was asked for before, [units, numbers]."""
        return self._columns(share)[:units]

    def _columns(self, share: Share) -> Tensor:
        dtype, first = self._places[share.parameter]
        span = share.span(self._parameters[share.parameter])
        return self._blocks[dtype][:, first + span.start : first + span.stop]
