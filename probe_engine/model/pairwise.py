"""X_u·P Y_v for all pairs of units, from vectors that are kept."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from probe_engine.vectors import ParameterVector

WIDENED = 2**21
"""Numbers in float64 at a time, of all vectors together."""


class PairwiseDots:
    """Grows by a row and a column with each unit; dot products accumulate in float64."""

    def __init__(self) -> None:
        self._xs: list[ParameterVector] = []
        self._pys: list[ParameterVector] = []
        self._matrix = torch.zeros((0, 0), dtype=torch.float64)

    def __len__(self) -> int:
        return len(self._xs)

    def add(self, x: ParameterVector, py: ParameterVector) -> None:
        """Keeps one unit's X_u and P Y_u."""
        self._xs.append(x)
        self._pys.append(py)

    def matrix(self) -> Tensor:
        """X_u·P Y_v, [n, n] of the n units so far; only what is new is computed."""
        old, now = len(self._matrix), len(self._xs)
        grown = torch.zeros((now, now), dtype=torch.float64)
        grown[:old, :old] = self._matrix
        grown[:, old:] = _gram(self._xs, self._pys[old:])
        grown[old:, :old] = _gram(self._xs[old:], self._pys[:old])
        self._matrix = grown
        return grown

    def with_directions(
        self, x_direction: ParameterVector, py_direction: ParameterVector
    ) -> tuple[Tensor, Tensor]:
        """X_u·v and P Y_u·w of the n units so far, each [n]."""
        return _gram(self._xs, [x_direction])[:, 0], _gram(self._pys, [py_direction])[:, 0]


def _gram(xs: Sequence[ParameterVector], ys: Sequence[ParameterVector]) -> Tensor:
    """X_u·Y_v [len(xs), len(ys)], a piece of a parameter at a time: no second copy of the vectors exists, and
    what is widened stays in a core's cache."""
    total = torch.zeros((len(xs), len(ys)), dtype=torch.float64)
    if not xs or not ys:
        return total
    by_device: dict[torch.device, Tensor] = {}
    size = max(1, WIDENED // (len(xs) + len(ys)))
    for index in range(len(xs[0].tensors)):
        x_tensors, y_tensors = [x.tensors[index] for x in xs], [y.tensors[index] for y in ys]
        template = next((t for t in (*x_tensors, *y_tensors) if t is not None), None)
        if template is None:
            continue
        x_rows, y_rows = _rows(x_tensors, template), _rows(y_tensors, template)
        for first in range(0, template.numel(), size):
            at = slice(first, first + size)
            found = _widened(x_rows, at) @ _widened(y_rows, at).T
            # Nobody waits for a device parameter by parameter.
            by_device[found.device] = by_device.get(found.device, 0) + found
    return total + sum(found.cpu() for found in by_device.values())


def _rows(tensors: Sequence[Tensor | None], template: Tensor) -> list[Tensor]:
    zero = template.new_zeros(()).expand(template.numel())
    return [zero if t is None else t.flatten() for t in tensors]


def _widened(rows: Sequence[Tensor], at: slice) -> Tensor:
    return torch.stack([row[at] for row in rows]).double()
