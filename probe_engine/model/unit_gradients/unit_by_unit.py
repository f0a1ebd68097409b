"""Both passes over many units, for methods that know one unit at a time."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence

from torch import Tensor

from probe_engine.estimators.token_statistics import TokenStatistics
from probe_engine.model.unit_gradients.interface import (
    Dots,
    Measurement,
    Passed,
    Receive,
    Rescored,
    Scored,
    untold,
)
from probe_engine.model.unit_gradients.objective import UnitObjective
from probe_engine.model.unit_gradients.received import handed_over
from probe_engine.vectors import ParameterVector


class UnitByUnit(ABC):
    """Nothing is shared between units."""

    fallback_parameters = 0

    def packs(self, units: Sequence[UnitObjective]) -> bool:
        """Every sequence has a row of its own."""
        return False

    @abstractmethod
    def measure(self, objective: UnitObjective, *, rao_blackwell: bool = False) -> Measurement:
        """S, X_u and Y_u of one unit."""

    @abstractmethod
    def score(self, objective: UnitObjective) -> Scored:
        """S and token statistics, without a graph."""

    @abstractmethod
    def rescore(self, objective: UnitObjective) -> Rescored:
        """S and entropies, without a graph."""

    @abstractmethod
    def contract(
        self,
        objective: UnitObjective,
        S: Tensor,
        x_directions: Sequence[ParameterVector],
        y_directions: Sequence[ParameterVector],
        tokens: Sequence[TokenStatistics] = (),
    ) -> Dots:
        """X_u·v for each v of `x_directions`, Y_u·v for each of `y_directions`."""

    def measurements(
        self,
        units: Sequence[UnitObjective],
        receive: Receive,
        passed: Passed = untold,
        *,
        rao_blackwell: bool = False,
        hold: bool = False,
    ) -> Iterator[Scored]:
        """First pass; nothing of it serves again."""
        for number, objective in enumerate(units):
            measured = self.measure(objective, rao_blackwell=rao_blackwell)
            handed_over(number, measured, receive)
            scored = Scored(objective, measured.S, measured.tokens)
            del measured  # before the next unit's vectors are made
            passed(objective.tokens)
            yield scored

    def scores(self, units: Sequence[UnitObjective], passed: Passed = untold) -> Iterator[Rescored]:
        """`rescore` of each."""
        for objective in units:
            scored = self.rescore(objective)
            passed(objective.tokens)
            yield scored

    def contractions(
        self,
        scored: Sequence[Scored],
        x_directions: Sequence[ParameterVector],
        y_directions: Sequence[ParameterVector],
        passed: Passed = untold,
        *,
        rao_blackwell: bool = False,
    ) -> Iterator[Dots]:
        """Second pass."""
        for s in scored:
            tokens = s.tokens if rao_blackwell else ()
            dots = self.contract(s.objective, s.S, x_directions, y_directions, tokens)
            passed(s.objective.tokens)
            yield dots
