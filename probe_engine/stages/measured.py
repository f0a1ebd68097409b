"""What the measurement hands on: sums of the units' gradients, and their dot products."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from probe_engine.estimators.token_statistics import TokenStatistics
from probe_engine.model.preconditioner import Preconditioner
from probe_engine.model.unit_gradients import UnitObjective
from probe_engine.model.unit_gradients.received import UnitSums
from probe_engine.registry import ParameterVector
from probe_engine.report import UnitRow
from probe_engine.spec import XForm
from probe_engine.stages.own_step import OwnStep
from probe_engine.types import Role, UnitScalars

ROLES: tuple[Role, Role] = ("E", "U")


@dataclass(frozen=True)
class Sums:
    """ΣX, ΣY and P ΣY over the units of each role, each [P]."""

    x: dict[XForm, dict[Role, ParameterVector]]
    y: dict[Role, ParameterVector]
    py: dict[Role, ParameterVector]
    counts: dict[Role, int]

    @classmethod
    def of(
        cls, unit_sums: UnitSums, forms: Sequence[XForm], p: Preconditioner, roles: Sequence[Role]
    ) -> Sums:
        """What arrived of units with these roles, by some forms of X."""
        y = unit_sums.y
        return cls(
            {form: unit_sums.x(form) for form in forms},
            y,
            {role: p(y[role]) for role in ROLES},
            {role: roles.count(role) for role in ROLES},
        )

    def mean_x(self, roles: Sequence[Role], form: XForm = "score") -> ParameterVector:
        """X̄ over the units of these roles."""
        return self._mean(self.x[form], roles)

    def mean_y(self, roles: Sequence[Role]) -> ParameterVector:
        """Ȳ over the units of these roles."""
        return self._mean(self.y, roles)

    def mean_py(self, roles: Sequence[Role]) -> ParameterVector:
        """P Ȳ over the units of these roles."""
        return self._mean(self.py, roles)

    def _mean(self, sums: Mapping[Role, ParameterVector], roles: Sequence[Role]) -> ParameterVector:
        return mean_vector([sums[r] for r in roles], sum(self.counts[r] for r in roles))


@dataclass(frozen=True)
class Projected:
    """One form of X against the policy gradients of all units."""

    scalars: tuple[UnitScalars, ...]
    pairs: Tensor | None
    """X_u·P Y_v, [B, B] without η, where the vectors were kept"""
    own: OwnStep | None
    """The optimizer's own step from U, where it is asked for and known, and something is held out."""


@dataclass(frozen=True)
class Measured:
    """All that the estimates need; parameter-length vectors only as sums."""

    objectives: tuple[UnitObjective, ...]
    S: tuple[Tensor, ...]
    """of each unit, [N]"""
    tokens: tuple[tuple[TokenStatistics, ...], ...]
    """of each unit's responses"""
    by_form: Mapping[XForm, Projected]
    """The score form always; the Rao-Blackwell form where it was asked for."""
    sums: Sums
    rows: tuple[UnitRow, ...]
    stale_ratio: float

    @property
    def scalars(self) -> tuple[UnitScalars, ...]:
        """By the score form."""
        return self.by_form["score"].scalars

    @property
    def pairs(self) -> Tensor | None:
        """By the score form."""
        return self.by_form["score"].pairs

    @property
    def own(self) -> OwnStep | None:
        """By the score form."""
        return self.by_form["score"].own


def mean_vector(vectors: Sequence[ParameterVector], count: int) -> ParameterVector:
    """(Σ vectors)/count; a parameter that none of them has stays None."""
    tensors = []
    for parts in zip(*(v.tensors for v in vectors), strict=True):
        present = [t for t in parts if t is not None]
        tensors.append(torch.stack(present).sum(0) / max(count, 1) if present else None)
    return ParameterVector(vectors[0].ids, tuple(tensors))
