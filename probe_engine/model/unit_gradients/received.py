"""What becomes of unit gradients that arrive parameter by parameter."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import partial
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
from probe_engine.model.unit_gradients.vector_sum import VectorSum
from probe_engine.registry import ParameterRegistry
from probe_engine.spec import XForm
from probe_engine.types import Role
from probe_engine.vectors import BLOCK, FEW_BLOCKS, SHARE, ParameterVector, Share, dots, share_of


class UnitVectors:
    """X_u and Y_u, summed over what arrives of them."""

    def __init__(self, registry: ParameterRegistry) -> None:
        self._x, self._y, self._x_rb = (_by_unit(registry) for _ in range(3))

    def __call__(self, share: Share, units: Sequence[int], x: Tensor, y: Tensor) -> None:
        """Adds to the vectors of these units."""
        _add(self._x, share, units, x)
        _add(self._y, share, units, y)

    def add_rao_blackwell(self, share: Share, units: Sequence[int], x_rb: Tensor) -> None:
        """Adds to X of (2b) of these units."""
        _add(self._x_rb, share, units, x_rb)

    def of(self, unit: int) -> tuple[ParameterVector, ParameterVector]:
        """X_u and Y_u of this unit."""
        return self._x[unit].total, self._y[unit].total

    def rao_blackwell(self, unit: int) -> ParameterVector:
        """X_u of (2b)."""
        return self._x_rb[unit].total


def _by_unit(registry: ParameterRegistry) -> dict[int, VectorSum]:
    return defaultdict(partial(VectorSum, registry))


def _add(vectors: Mapping[int, VectorSum], share: Share, units: Sequence[int], parts: Tensor) -> None:
    for unit, part in zip(units, parts, strict=True):
        vectors[unit].add_share(share, part, own=True)


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

    No more than a share of a parameter is needed at a time; but P Y_u waits until X_u of (2b) has come.
    What depends on X is there once for each form of it: `score` is (2), `rao_blackwell` (2b).
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
        self._registry = registry
        self._x: dict[XForm, dict[Role, VectorSum]] = {
            form: _by_role(registry) for form in ("score", "rao_blackwell")
        }
        self._y = _by_role(registry)
        self._dots = {"score": _Rows(len(roles), 4), "rao_blackwell": _Rows(len(roles), 2)}
        """‖X_u‖², X_u·P Y_u, ‖P Y_u‖² and ‖Y_u‖²; the first two for (2b)"""
        self._kept = UnitVectors(registry) if keep else None
        self._waiting = _by_unit(registry) if rao_blackwell else None
        """P Y_u"""

    def __call__(self, share: Share, units: Sequence[int], x: Tensor, y: Tensor) -> None:
        """Takes in a share of X and Y of these units."""
        diagonal = share_of(self._p.diagonal, share)
        py = y if diagonal is None else diagonal * y
        self._sum(self._y, share, units, y)
        self._take("score", share, units, x, (x, x), (x, py), (py, py), (y, y))
        if self._squares is not None:
            for part in y:
                self._squares.add(share, part)
        if self._kept is not None:
            self._kept(share, units, x, py)
        if self._waiting is not None:
            _add(self._waiting, share, units, py)

    def add_rao_blackwell(self, share: Share, units: Sequence[int], x_rb: Tensor) -> None:
        """Takes in a share of X of (2b), after that of X and Y."""
        assert self._waiting is not None
        waiting = [self._waiting[unit] for unit in units]
        py = torch.stack([of_unit.share(share) for of_unit in waiting])
        self._take("rao_blackwell", share, units, x_rb, (x_rb, x_rb), (x_rb, py))
        if self._kept is not None:
            self._kept.add_rao_blackwell(share, units, x_rb)
        if share.ends(self._registry.parameters[share.parameter]):
            for of_unit in waiting:
                of_unit.drop(share.parameter)

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
        return _totals(self._x[form])

    @property
    def y(self) -> dict[Role, ParameterVector]:
        """ΣY by role."""
        return _totals(self._y)

    def _take(
        self, form: XForm, share: Share, units: Sequence[int], x: Tensor, *pairs: tuple[Tensor, Tensor]
    ) -> None:
        self._dots[form].add(units, _products(pairs))
        self._sum(self._x[form], share, units, x)

    def _sum(self, sums: Mapping[Role, VectorSum], share: Share, units: Sequence[int], parts: Tensor) -> None:
        for unit, part in zip(units, parts, strict=True):
            sums[self._roles[unit]].add_share(share, part)


def _by_role(registry: ParameterRegistry) -> dict[Role, VectorSum]:
    return {"E": VectorSum(registry), "U": VectorSum(registry)}


def _totals(sums: Mapping[Role, VectorSum]) -> dict[Role, ParameterVector]:
    return {role: vector.total for role, vector in sums.items()}


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

    def __call__(self, share: Share, units: Sequence[int], x: Tensor, y: Tensor) -> None:
        """Adds what a share brings, or a part of that."""
        self._add(0, share, units, x)
        self._add(1, share, units, y)

    def add_rao_blackwell(self, share: Share, units: Sequence[int], x_rb: Tensor) -> None:
        """The same of X of (2b)."""
        self._add(2, share, units, x_rb)

    def of(self, unit: int) -> Dots:
        """The unit's dot products."""
        return Dots(*(dots.of(unit) for dots in self._dots))

    def _add(self, kind: int, share: Share, units: Sequence[int], mine: Tensor) -> None:
        directions = [direction.share(share) for direction in self._directions[kind]]
        if directions:
            zeros = mine.new_zeros(()).expand(mine.shape[1:])
            self._dots[kind].add(units, _products([(mine, zeros if v is None else v) for v in directions]))


def handed_over(unit: int, measured: Measurement, receive: Receive, receive_rb: ReceiveX | None) -> None:
    """Vectors of one unit, parameter by parameter; what has no gradient is not mentioned."""
    for index, (x, y) in enumerate(zip(measured.x.tensors, measured.y.tensors, strict=True)):
        if x is not None and y is not None:
            receive(Share(index), [unit], x[None], y[None])
            x_rb = None if measured.x_rb is None else measured.x_rb.tensors[index]
            if receive_rb is not None and x_rb is not None:
                receive_rb(Share(index), [unit], x_rb[None])


def _products(pairs: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """Inner products of pairs of vectors of each unit, [units, pairs], float64; a piece of all at a time.

    Args:
        pairs: [units, ...] with the same, or without the first axis.
    """
    axes = pairs[0][0].dim()
    units, numel = pairs[0][0].flatten(1).shape
    flat_by_id = {id(t): t.flatten(int(t.dim() == axes)) for pair in pairs for t in pair}
    if numel < BLOCK * FEW_BLOCKS:  # what `dots` would widen for each of its pairs
        flat_by_id = {key: t.double() for key, t in flat_by_id.items()}
    flat = [(flat_by_id[id(a)], flat_by_id[id(b)]) for a, b in pairs]
    total = torch.zeros(units, len(pairs), dtype=torch.float64, device=flat[0][0].device)
    size = max(1, SHARE // units)
    for first in range(0, numel, size):
        at = slice(first, first + size)
        total += torch.stack([dots(a[:, at], b[..., at]) for a, b in flat], 1)
    return total
