"""What becomes of unit gradients that arrive parameter by parameter."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor

from probe_engine.estimators.mapping import GradientSquares
from probe_engine.model.preconditioner import Preconditioner
from probe_engine.model.unit_gradients.interface import Receive
from probe_engine.registry import ParameterRegistry, ParameterVector
from probe_engine.types import Role


class UnitVectors:
    """X_u and Y_u, summed over what arrives of them."""

    def __init__(self, registry: ParameterRegistry) -> None:
        self._ids = registry.ids
        self._x: dict[int, dict[int, Tensor]] = defaultdict(dict)
        self._y: dict[int, dict[int, Tensor]] = defaultdict(dict)

    def __call__(self, parameter: int, units: Sequence[int], x: Tensor, y: Tensor) -> None:
        """Adds to the vectors of these units."""
        for place, unit in enumerate(units):
            for vectors, part in ((self._x, x[place]), (self._y, y[place])):
                mine = vectors[unit].get(parameter)
                vectors[unit][parameter] = part if mine is None else mine.add_(part)

    def of(self, unit: int) -> tuple[ParameterVector, ParameterVector]:
        """X_u and Y_u of this unit."""
        x, y = (
            ParameterVector(self._ids, tuple(vectors[unit].get(i) for i in range(len(self._ids))))
            for vectors in (self._x, self._y)
        )
        return x, y


class UnitSums:
    """Sums over the units of each role and four dot products of each unit; X_u and P Y_u where they are kept.

    No more than one parameter's X and Y of a unit is needed at a time.
    """

    def __init__(
        self,
        registry: ParameterRegistry,
        p: Preconditioner,
        roles: Sequence[Role],
        *,
        keep: bool,
        squares: GradientSquares | None = None,
    ) -> None:
        self._p, self._roles, self._squares = p, roles, squares
        self._ids = registry.ids
        self._x: dict[Role, dict[int, Tensor]] = {"E": {}, "U": {}}
        self._y: dict[Role, dict[int, Tensor]] = {"E": {}, "U": {}}
        self._dots = torch.zeros(len(roles), 4, dtype=torch.float64)
        self._kept = UnitVectors(registry) if keep else None

    def __call__(self, parameter: int, units: Sequence[int], x: Tensor, y: Tensor) -> None:
        """Takes in one parameter's whole share of X and Y of these units."""
        diagonal = self._p.diagonal[parameter]
        py = y if diagonal is None else diagonal * y
        self._dots[list(units)] += torch.stack(
            [_dot(x, x), _dot(y, y), _dot(py, py), _dot(x, py)], dim=1
        ).cpu()
        for place, unit in enumerate(units):
            for sums, part in ((self._x, x), (self._y, y)):
                mine = sums[self._roles[unit]]
                if parameter in mine:
                    mine[parameter] += part[place]
                else:
                    mine[parameter] = part[place].clone()
            if self._squares is not None:
                self._squares.add_one(parameter, y[place])
        if self._kept is not None:
            self._kept(parameter, units, x, py)

    def norms(self, unit: int) -> tuple[float, float, float, float]:
        """‖X_u‖, ‖Y_u‖, ‖P Y_u‖, X_u·P Y_u."""
        x, y, py, x_py = self._dots[unit].tolist()
        return x**0.5, y**0.5, py**0.5, x_py

    def kept(self, unit: int) -> tuple[ParameterVector, ParameterVector]:
        """X_u and P Y_u."""
        assert self._kept is not None
        return self._kept.of(unit)

    @property
    def x(self) -> dict[Role, ParameterVector]:
        """ΣX by role."""
        return {role: self._vector(tensors) for role, tensors in self._x.items()}

    @property
    def y(self) -> dict[Role, ParameterVector]:
        """ΣY by role."""
        return {role: self._vector(tensors) for role, tensors in self._y.items()}

    def _vector(self, tensors: dict[int, Tensor]) -> ParameterVector:
        return ParameterVector(self._ids, tuple(tensors.get(i) for i in range(len(self._ids))))


class Contractions:
    """X_u·v and Y_u·v, added up over what arrives of X_u and Y_u."""

    def __init__(
        self,
        x_directions: Sequence[ParameterVector],
        y_directions: Sequence[ParameterVector],
        units: int,
    ) -> None:
        self._directions = (x_directions, y_directions)
        self._dots = tuple(torch.zeros(units, len(v), dtype=torch.float64) for v in self._directions)

    def __call__(self, parameter: int, units: Sequence[int], x: Tensor, y: Tensor) -> None:
        """Adds one parameter's part, or a part of it."""
        for mine, directions, dots in zip((x, y), self._directions, self._dots, strict=True):
            for column, direction in enumerate(directions):
                v = direction.tensors[parameter]
                if v is not None:
                    dots[list(units), column] += _dot(mine, v).cpu()

    def of(self, unit: int) -> tuple[list[float], list[float]]:
        """The unit's dot products with the directions of X, and with those of Y."""
        x, y = self._dots
        return x[unit].tolist(), y[unit].tolist()


def handed_over(unit: int, x: ParameterVector, y: ParameterVector, receive: Receive) -> None:
    """Whole vectors of one unit, parameter by parameter; what has no gradient is not mentioned."""
    for index, (of_x, of_y) in enumerate(zip(x.tensors, y.tensors, strict=True)):
        if of_x is not None and of_y is not None:
            receive(index, [unit], of_x[None], of_y[None])


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """Inner products, [units], of a [units, ...] with b, which may lack the first axis; float64 sums."""
    return (a * b).flatten(1).sum(1, dtype=torch.float64)
