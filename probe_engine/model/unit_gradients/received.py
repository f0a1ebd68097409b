"""What becomes of unit gradients that arrive parameter by parameter."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from probe_engine.estimators.mapping import GradientSquares
from probe_engine.model.kept_vectors import KeptVectors
from probe_engine.model.pairwise import PairwiseDots
from probe_engine.model.preconditioner import Preconditioner
from probe_engine.model.unit_gradients.interface import (
    Dots,
    Measurement,
    Receive,
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

    def __call__(
        self, share: Share, units: Sequence[int], x: Tensor, y: Tensor, x_rb: Tensor | None = None, /
    ) -> None:
        """Adds to the vectors of these units."""
        for vectors, parts in ((self._x, x), (self._y, y), (self._x_rb, x_rb)):
            if parts is not None:
                for unit, part in zip(units, parts, strict=True):
                    vectors[unit].add_share(share, part, own=True)

    def of(self, unit: int) -> tuple[ParameterVector, ParameterVector]:
        """X_u and Y_u of this unit."""
        return self._x[unit].total, self._y[unit].total

    def rao_blackwell(self, unit: int) -> ParameterVector:
        """X_u of (2b)."""
        return self._x_rb[unit].total


def _by_unit(registry: ParameterRegistry) -> dict[int, VectorSum]:
    return defaultdict(partial(VectorSum, registry))


def measured_together(
    method: UnitGradients,
    registry: ParameterRegistry,
    units: Sequence[UnitObjective],
    *,
    rao_blackwell: bool = False,
) -> list[Measurement]:
    """S, X_u and Y_u of a few units, whose vectors are all kept, in as few passes as the method takes."""
    vectors = UnitVectors(registry)
    scored = method.measurements(units, vectors, rao_blackwell=rao_blackwell)
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

    No more than a share of a parameter is needed at a time. What depends on X is there once for each form of
    it: `score` is (2), `rao_blackwell` (2b).

    Args:
        registry: the parameters.
        p: P.
        roles: of all units.
        keep_on: the device that keeps vectors; None: they are let go.
        rao_blackwell: whether X of (2b) comes.
        squares: gets each Y.
    """

    def __init__(
        self,
        registry: ParameterRegistry,
        p: Preconditioner,
        roles: Sequence[Role],
        *,
        keep_on: torch.device | None,
        rao_blackwell: bool = False,
        squares: GradientSquares | None = None,
    ) -> None:
        self._p, self._roles, self._squares = p, roles, squares
        self._x: dict[XForm, dict[Role, VectorSum]] = {
            form: _by_role(registry) for form in ("score", "rao_blackwell")
        }
        self._y = _by_role(registry)
        self._dots = {"score": _Rows(len(roles), 4), "rao_blackwell": _Rows(len(roles), 2)}
        """‖X_u‖², X_u·P Y_u, ‖P Y_u‖² and ‖Y_u‖²; the first two for (2b)"""
        forms: tuple[XForm, ...] = ("score", "rao_blackwell") if rao_blackwell else ("score",)
        self._kept: dict[str, KeptVectors] = {}
        if keep_on is not None:
            self._kept = {name: KeptVectors(registry, len(roles), keep_on) for name in (*forms, "py")}
        self.pairs = {form: PairwiseDots(self._kept[form], self._kept["py"]) for form in forms if self._kept}
        """X_u·P Y_v of units of which all has come, where their vectors are kept"""

    def __call__(
        self, share: Share, units: Sequence[int], x: Tensor, y: Tensor, x_rb: Tensor | None = None, /
    ) -> None:
        """Takes in a share of the gradients of these units."""
        py = _preconditioned(self._p, share, y)
        _add_by_role(self._y, self._roles, share, units, y)
        self._take("score", share, units, x, (x, x), (x, py), (py, py), (y, y))
        if x_rb is not None:
            self._take("rao_blackwell", share, units, x_rb, (x_rb, x_rb), (x_rb, py))
        if self._squares is not None:
            for part in y:
                self._squares.add(share, part)
        if self._kept:
            self._kept["py"].put(share, units, py)

    def norms(self, unit: int, form: XForm = "score") -> tuple[float, float, float, float]:
        """‖X_u‖, ‖Y_u‖, ‖P Y_u‖, X_u·P Y_u."""
        of_x, x_py, *_ = self._dots[form].of(unit)
        *_, of_py, of_y = self._dots["score"].of(unit)
        return of_x**0.5, of_y**0.5, of_py**0.5, x_py

    def x(self, form: XForm = "score") -> dict[Role, ParameterVector]:
        """ΣX by role, which goes with whoever asks for it."""
        return _totals(self._x.pop(form))

    @property
    def y(self) -> dict[Role, ParameterVector]:
        """ΣY by role."""
        return _totals(self._y)

    def _take(
        self, form: XForm, share: Share, units: Sequence[int], x: Tensor, *pairs: tuple[Tensor, Tensor]
    ) -> None:
        self._dots[form].add(units, _products(pairs))
        _add_by_role(self._x[form], self._roles, share, units, x)
        if self._kept:
            self._kept[form].put(share, units, x)


class RaoBlackwellSums:
    """X of (2b) alone, of units whose ΣY are known: its sums over each role, and the dot products of each
    unit's."""

    def __init__(
        self,
        registry: ParameterRegistry,
        p: Preconditioner,
        roles: Sequence[Role],
        directions: Sequence[ParameterVector],
    ) -> None:
        self._p, self._roles, self._directions = p, roles, directions
        self._x = _by_role(registry)
        self._dots = _Rows(len(roles), 2 + len(directions))
        """‖X_u‖², X_u·P Y_u, X_u·v"""

    def __call__(
        self, share: Share, units: Sequence[int], _x: Tensor, y: Tensor, x_rb: Tensor | None = None, /
    ) -> None:
        """Takes in a share of the gradients of these units."""
        assert x_rb is not None
        py = _preconditioned(self._p, share, y)
        others = [x_rb, py, *_shares(self._directions, share, x_rb)]
        self._dots.add(units, _products([(x_rb, other) for other in others]))
        _add_by_role(self._x, self._roles, share, units, x_rb)

    def of(self, unit: int) -> tuple[float, float, list[float]]:
        """‖X_u‖, X_u·P Y_u, and X_u·v for each direction."""
        square, x_py, *along = self._dots.of(unit)
        return square**0.5, x_py, along

    @property
    def x(self) -> dict[Role, ParameterVector]:
        """ΣX by role."""
        return _totals(self._x)


def _by_role(registry: ParameterRegistry) -> dict[Role, VectorSum]:
    return {"E": VectorSum(registry), "U": VectorSum(registry)}


def _add_by_role(
    sums: Mapping[Role, VectorSum],
    roles: Sequence[Role],
    share: Share,
    units: Sequence[int],
    parts: Tensor,
) -> None:
    for unit, part in zip(units, parts, strict=True):
        sums[roles[unit]].add_share(share, part)


def _preconditioned(p: Preconditioner, share: Share, y: Tensor) -> Tensor:
    diagonal = share_of(p.diagonal, share)
    return y if diagonal is None else diagonal * y


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

    def __call__(
        self, share: Share, units: Sequence[int], x: Tensor, y: Tensor, x_rb: Tensor | None = None, /
    ) -> None:
        """Adds what a share brings, or a part of that."""
        for kind, parts in enumerate((x, y, x_rb)):
            if parts is not None:
                self._add(kind, share, units, parts)

    def of(self, unit: int) -> Dots:
        """The unit's dot products."""
        return Dots(*(dots.of(unit) for dots in self._dots))

    def _add(self, kind: int, share: Share, units: Sequence[int], mine: Tensor) -> None:
        directions = _shares(self._directions[kind], share, mine)
        if directions:
            self._dots[kind].add(units, _products([(mine, v) for v in directions]))


def _shares(directions: Sequence[ParameterVector], share: Share, like: Tensor) -> list[Tensor]:
    """Of each direction, 0 where it has nothing."""
    zeros = like.new_zeros(()).expand(like.shape[1:])
    found = [direction.share(share) for direction in directions]
    return [zeros if v is None else v for v in found]


def handed_over(unit: int, measured: Measurement, receive: Receive) -> None:
    """Vectors of one unit, parameter by parameter; what has no gradient is not mentioned."""
    for index, (x, y) in enumerate(zip(measured.x.tensors, measured.y.tensors, strict=True)):
        if x is not None and y is not None:
            x_rb = None if measured.x_rb is None else measured.x_rb.tensors[index]
            receive(Share(index), [unit], x[None], y[None], None if x_rb is None else x_rb[None])


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
