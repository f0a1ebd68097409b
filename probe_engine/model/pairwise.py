"""X_u·P Y_v for all pairs of units, from vectors that are kept."""

from __future__ import annotations

import torch
from torch import Tensor

from probe_engine.model.kept_vectors import KeptVectors
from probe_engine.vectors import ParameterVector, dots

WIDENED = 2**19
"""Numbers in float64 at a time, of all vectors together."""


class PairwiseDots:
    """Grows by a row and a column with each unit; dot products accumulate in float64.

    Args:
        x: X_u of all units.
        py: P Y_u.
    """

    def __init__(self, x: KeptVectors, py: KeptVectors) -> None:
        self._x, self._py = x, py
        self._matrix = torch.zeros((0, 0), dtype=torch.float64)

    def matrix(self, units: int) -> Tensor:
        """X_u·P Y_v, [n, n] of the first n units, which have come; only what is new is computed."""
        old = len(self._matrix)
        grown = torch.zeros((units, units), dtype=torch.float64)
        grown[:old, :old] = self._matrix
        grown[:, old:] = self._products(slice(0, units), slice(old, units))
        grown[old:, :old] = self._products(slice(old, units), slice(0, old))
        self._matrix = grown
        return grown

    def with_directions(
        self, x_direction: ParameterVector, py_direction: ParameterVector
    ) -> tuple[Tensor, Tensor]:
        """X_u·v and P Y_u·w of the units of `matrix`, each [n]."""
        return self._along(self._x, x_direction), self._along(self._py, py_direction)

    def _products(self, of_x: slice, of_py: slice) -> Tensor:
        """A piece at a time: what is widened stays in a core's cache."""
        total = torch.zeros((of_x.stop - of_x.start, of_py.stop - of_py.start), dtype=torch.float64)
        if not total.numel():
            return total
        size = max(1, WIDENED // sum(total.shape))
        for x, py in zip(self._x.rows(of_x), self._py.rows(of_py), strict=True):
            found = total.new_zeros(total.shape, device=x.device)  # nobody waits for it piece by piece
            for a, b in zip(x.split(size, 1), py.split(size, 1), strict=True):
                found.addmm_(a.double(), b.double().T)
            total += found.cpu()
        return total

    def _along(self, kept: KeptVectors, direction: ParameterVector) -> Tensor:
        units = len(self._matrix)
        total = torch.zeros(units, dtype=torch.float64)
        for share in direction.shares:
            v = direction.share(share)
            if v is not None:
                mine = kept.share(share, units)
                total += dots(mine, v.flatten().to(mine)).cpu()
        return total
