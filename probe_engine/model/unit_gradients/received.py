"""What becomes of unit gradients that arrive parameter by parameter."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from probe_engine.estimators.mapping import GradientSquares
from probe_engine.model.preconditioner import Preconditioner
from probe_engine.model.unit_gradients.interface import (
    Dots,
    Measurement,
    Receive,
    ReceiveX,
    UnitGradients,
)
from probe_engine.model.unit_gradients.objective import UnitObjective
from probe_engine.registry import PIECE, ParameterRegistry, ParameterVector, dots
from probe_engine.spec import XForm
from probe_engine.types import Role


class UnitVectors:
    """X_u and Y_u, summed over what arrives of them."""

    def __init__(self, registry: ParameterRegistry) -> None:
        self._ids = registry.ids
        self._x, self._y, self._x_rb = (defaultdict[int, dict[int, Tensor]](dict) for _ in range(3))

    def __call__(self, parameter: int, units: Sequence[int], x: Tensor, y: Tensor) -> None:
        """Adds to the vectors of these units."""
        _add(self._x, parameter, units, x)
        _add(self._y, parameter, units, y)

    def add_rao_blackwell(self, parameter: int, units: Sequence[int], x_rb: Tensor) -> None:
        """Adds to X of (2b) of these units."""
        _add(self._x_rb, parameter, units, x_rb)

    def of(self, unit: int) -> tuple[ParameterVector, ParameterVector]:
        """X_u and Y_u of this unit."""
        return self._vector(self._x[unit]), self._vector(self._y[unit])

    def rao_blackwell(self, unit: int) -> ParameterVector:
        """X_u of (2b)."""
        return self._vector(self._x_rb[unit])

    def _vector(self, tensors: dict[int, Tensor]) -> ParameterVector:
        return ParameterVector(self._ids, tuple(tensors.get(i) for i in range(len(self._ids))))


def _add(vectors: dict[int, dict[int, Tensor]], parameter: int, units: Sequence[int], parts: Tensor) -> None:
    for unit, part in zip(units, parts, strict=True):
        mine = vectors[unit].get(parameter)
        vectors[unit][parameter] = part if mine is None else mine.add_(part)


def measured_together(
    method: UnitGradients,
    registry: ParameterRegistry,
    units: Sequence[UnitObjective],
    *,
    rao_blackwell: bool = False,
) -> list[Measurement]:
    """S, X_u and Y_u of a few units, whose vectors are all kept, in as few passes as the method takes."""
    vectors = UnitVectors(registry)
    scored = method.measurements(
        units, vectors, receive_rb=vectors.add_rao_blackwell if rao_blackwell else None
    )
    return [
        Measurement(
            s.objective,
            s.S,
            s.tokens,
            *vectors.of(number),
            vectors.rao_blackwell(number) if rao_blackwell else None,
        )
        for number, s in enumerate(scored)
    ]


class UnitSums:
    """Sums over the units of each role and the dot products of each unit; X_u and P Y_u where they are kept.

    No more than one parameter's share of a unit is needed at a time; but P Y_u waits until X_u of (2b) has
    come. What depends on X is there once for each form of it: `score` is (2), `rao_blackwell` (2b).
    """

    def __init__(
        self,
        registry: ParameterRegistry,
        p: Preconditioner,
        roles: Sequence[Role],
        *,
        keep: bool,
        rao_blackwell: bool = False,
        squares: GradientSquares | None = None,
    ) -> None:
        self._p, self._roles, self._squares = p, roles, squares
        self._ids = registry.ids
        self._x: dict[XForm, _Sums] = {"score": _Sums(), "rao_blackwell": _Sums()}
        self._y = _Sums()
        self._dots = {"score": _Rows(len(roles), 4), "rao_blackwell": _Rows(len(roles), 2)}
        """‖X_u‖², X_u·P Y_u, ‖P Y_u‖² and ‖Y_u‖²; the first two for (2b)"""
        self._kept = UnitVectors(registry) if keep else None
        self._waiting: dict[tuple[int, int], Tensor] | None = {} if rao_blackwell else None
        """P Y_u, by parameter and unit"""

    def __call__(self, parameter: int, units: Sequence[int], x: Tensor, y: Tensor) -> None:
        """Takes in one parameter's whole share of X and Y of these units."""
        diagonal = self._p.diagonal[parameter]
        py = y if diagonal is None else diagonal * y
        self._y.add(parameter, self._roles_of(units), y)
        self._take("score", parameter, units, x, (x, x), (x, py), (py, py), (y, y))
        if self._squares is not None:
            for part in y:
                self._squares.add_one(parameter, part)
        if self._kept is not None:
            self._kept(parameter, units, x, py)
        if self._waiting is not None:
            self._waiting |= {(parameter, unit): part for unit, part in zip(units, py, strict=True)}

    def add_rao_blackwell(self, parameter: int, units: Sequence[int], x_rb: Tensor) -> None:
        """Takes in one parameter's whole share of X of (2b), after that of X and Y."""
        assert self._waiting is not None
        py = torch.stack([self._waiting.pop((parameter, unit)) for unit in units])
        self._take("rao_blackwell", parameter, units, x_rb, (x_rb, x_rb), (x_rb, py))
        if self._kept is not None:
            self._kept.add_rao_blackwell(parameter, units, x_rb)

    def norms(self, unit: int, form: XForm = "score") -> tuple[float, float, float, float]:
        """‖X_u‖, ‖Y_u‖, ‖P Y_u‖, X_u·P Y_u."""
        of_x, x_py, *_ = self._dots[form].of(unit)
        *_, of_py, of_y = self._dots["score"].of(unit)
        return of_x**0.5, of_y**0.5, of_py**0.5, x_py

    def kept(self, unit: int) -> tuple[ParameterVector, ParameterVector, ParameterVector]:
        """X_u, P Y_u, and X_u of (2b): with nothing in it where that was not computed."""
        assert self._kept is not None
        return *self._kept.of(unit), self._kept.rao_blackwell(unit)

    def x(self, form: XForm = "score") -> dict[Role, ParameterVector]:
        """ΣX by role."""
        return self._x[form].by_role(self._ids)

    @property
    def y(self) -> dict[Role, ParameterVector]:
        """ΣY by role."""
        return self._y.by_role(self._ids)

    def _take(
        self, form: XForm, parameter: int, units: Sequence[int], x: Tensor, *pairs: tuple[Tensor, Tensor]
    ) -> None:
        self._dots[form].add(units, _products(pairs))
        self._x[form].add(parameter, self._roles_of(units), x)

    def _roles_of(self, units: Sequence[int]) -> list[Role]:
        return [self._roles[unit] for unit in units]


class _Rows:
    """Numbers of each unit, added up on the device they come from: nobody waits for it parameter by
    parameter."""

    def __init__(self, units: int, *shape: int) -> None:
        self._shape = units, *shape
        self._total: Tensor | None = None

    def add(self, units: Sequence[int], rows: Tensor) -> None:
        """Numbers of some units, [units, ...], float64."""
        if self._total is None:
            self._total = rows.new_zeros(self._shape)
        at = torch.tensor(units, device=self._total.device)
        self._total.index_add_(0, at, rows.to(self._total.device))

    def of(self, unit: int) -> Any:
        """The unit's, as lists; 0 where nothing came."""
        return (torch.zeros(self._shape) if self._total is None else self._total)[unit].tolist()


class _Sums:
    """Sums over the units of each role."""

    def __init__(self) -> None:
        self._tensors: dict[Role, dict[int, Tensor]] = {"E": {}, "U": {}}

    def add(self, parameter: int, roles: Sequence[Role], parts: Tensor) -> None:
        for role, part in zip(roles, parts, strict=True):
            mine = self._tensors[role]
            if parameter in mine:
                mine[parameter] += part
            else:
                mine[parameter] = part.clone()

    def by_role(self, ids: tuple[int, ...]) -> dict[Role, ParameterVector]:
        return {
            role: ParameterVector(ids, tuple(tensors.get(i) for i in range(len(ids))))
            for role, tensors in self._tensors.items()
        }


class Contractions:
    """X_u·v and Y_u·v, added up over what arrives of X_u and Y_u."""

    def __init__(
        self,
        x_directions: Sequence[ParameterVector],
        y_directions: Sequence[ParameterVector],
        units: int,
        *,
        rao_blackwell: bool,
    ) -> None:
        self._directions = (x_directions, y_directions, x_directions if rao_blackwell else ())
        self._dots = tuple(_Rows(units, len(v)) for v in self._directions)

    def __call__(self, parameter: int, units: Sequence[int], x: Tensor, y: Tensor) -> None:
        """Adds one parameter's part, or a part of it."""
        self._add(0, parameter, units, x)
        self._add(1, parameter, units, y)

    def add_rao_blackwell(self, parameter: int, units: Sequence[int], x_rb: Tensor) -> None:
        """The same of X of (2b)."""
        self._add(2, parameter, units, x_rb)

    def of(self, unit: int) -> Dots:
        """The unit's dot products."""
        return Dots(*(dots.of(unit) for dots in self._dots))

    def _add(self, kind: int, parameter: int, units: Sequence[int], mine: Tensor) -> None:
        directions = [direction.tensors[parameter] for direction in self._directions[kind]]
        if directions:
            zero = mine.new_zeros(())
            self._dots[kind].add(units, _products([(mine, zero if v is None else v) for v in directions]))


def handed_over(unit: int, measured: Measurement, receive: Receive, receive_rb: ReceiveX | None) -> None:
    """Whole vectors of one unit, parameter by parameter; what has no gradient is not mentioned."""
    for index, (x, y) in enumerate(zip(measured.x.tensors, measured.y.tensors, strict=True)):
        if x is not None and y is not None:
            receive(index, [unit], x[None], y[None])
            x_rb = None if measured.x_rb is None else measured.x_rb.tensors[index]
            if receive_rb is not None and x_rb is not None:
                receive_rb(index, [unit], x_rb[None])


def _products(pairs: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """Inner products of pairs of vectors of each unit, [units, pairs], float64; a piece of all at a time.

    Args:
        pairs: [units, ...] with the same, or without the first axis.
    """
    flat = [(a.flatten(1), b.expand_as(a).flatten(1)) for a, b in pairs]
    units, numel = flat[0][0].shape
    total = torch.zeros(units, len(pairs), dtype=torch.float64, device=flat[0][0].device)
    size = max(1, PIECE // units)
    for first in range(0, numel, size):
        at = slice(first, first + size)
        total += torch.stack([dots(a[:, at], b[:, at]) for a, b in flat], 1)
    return total
