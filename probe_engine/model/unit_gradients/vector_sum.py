"""A running sum of vectors over the parameters."""

from __future__ import annotations

from torch import Tensor

from probe_engine.registry import ParameterRegistry
from probe_engine.vectors import ParameterVector, Share


class VectorSum:
    """Σ of what is added, share by share; a parameter that never had a gradient stays None."""

    def __init__(self, registry: ParameterRegistry) -> None:
        self._registry = registry
        self._tensors: dict[int, Tensor] = {}

    def add(self, vector: ParameterVector) -> None:
        """Adds all of a vector, accumulated in its own (wide) dtype."""
        for index, tensor in enumerate(vector.tensors):
            if tensor is not None:
                self.add_share(Share(index), tensor)

    def add_share(self, share: Share, part: Tensor, *, own: bool = False) -> None:
        """Adds a parameter's, or that of some rows.

        Args:
            own: whether the part may be kept and written into.
        """
        mine = self._tensors.get(share.parameter)
        if mine is not None:
            share.of(mine).add_(part)
        elif share.whole:
            self._tensors[share.parameter] = part if own else part.clone()
        else:
            shape = self._registry.parameters[share.parameter].shape
            mine = self._tensors[share.parameter] = part.new_zeros(shape)
            share.of(mine).copy_(part)

    @property
    def total(self) -> ParameterVector:
        """The sum so far."""
        tensors = tuple(self._tensors.get(index) for index in range(len(self._registry)))
        return ParameterVector(self._registry.ids, tensors)
