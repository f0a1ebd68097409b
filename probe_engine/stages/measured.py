"""What the measurement hands on: sums of the units' gradients, and their dot products."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from probe_engine.estimators.token_statistics import TokenStatistics
from probe_engine.model.preconditioner import Preconditioner
from probe_engine.model.unit_gradients import UnitObjective
from probe_engine.report import Forecast, UnitRow
from probe_engine.spec import XForm
from probe_engine.stages.own_step import OwnStep
from probe_engine.types import Role, UnitScalars
from probe_engine.vectors import ParameterVector

ROLES: tuple[Role, Role] = ("E", "U")


@dataclass(frozen=True)
class Sums:
    """A vector's sums over the units of each role, [P] each."""

    by_role: Mapping[Role, ParameterVector]
    counts: Mapping[Role, int]
    """Units of each role."""

    @property
    def total(self) -> ParameterVector:
        """Over all units, lazy."""
        return self.by_role["E"].plus(self.by_role["U"])

    def mean(self, roles: Sequence[Role]) -> ParameterVector:
        """Over the units of these roles, lazy."""
        summed = self.by_role[roles[0]] if len(roles) == 1 else self.total
        return summed.scaled(1 / max(1, sum(self.counts[r] for r in roles)))

    def preconditioned(self, p: Preconditioner) -> Sums:
        """P times each, lazy."""
        return Sums({role: p(vector) for role, vector in self.by_role.items()}, self.counts)


@dataclass(frozen=True)
class Projected:
    """One form of X against the policy gradients of all units."""

    scalars: tuple[UnitScalars, ...]
    pairs: Tensor | None
    """X_u·P Y_v, [B, B] without η, where the vectors were kept"""
    own: OwnStep | None
    """The optimizer's own step from U, where it is asked for and known, and something is held out."""
    own_of_all: float | None
    """X̄·Δθ of the optimizer's own step from all units, where it is asked for and known"""


@dataclass(frozen=True)
class Measured:
    """All that the estimates and the steps need; of parameter-length vectors no more than ΣY of each role."""

    objectives: tuple[UnitObjective, ...]
    S: tuple[Tensor, ...]
    """of each unit, [N]"""
    tokens: tuple[tuple[TokenStatistics, ...], ...]
    """of each unit's responses"""
    by_form: Mapping[XForm, Projected]
    """The score form always; the Rao-Blackwell form where it was asked for."""
    y: Sums
    """ΣY"""
    py: Sums
    """P ΣY, made of it"""
    rows: tuple[UnitRow, ...]
    stale_ratio: float
    forecast: Forecast | None
    """Made from the first units, where it was asked for."""

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
