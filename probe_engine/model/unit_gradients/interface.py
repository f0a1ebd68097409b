"""What a method of computing unit gradients offers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from probe_engine.model.unit_gradients.objective import UnitObjective
from probe_engine.registry import ParameterVector


@dataclass(frozen=True)
class Measurement:
    """One unit, measured."""

    objective: UnitObjective
    S: Tensor
    """[N], float64, nats"""
    log_probs: tuple[Tensor, ...]
    """of each response's tokens, nats"""
    x: ParameterVector
    y: ParameterVector


class UnitGradients(Protocol):
    """Two passes over the units; the second only where the vectors of the first were not kept."""

    @property
    def name(self) -> str:
        """As `--method` says it."""
        ...

    @property
    def keeps_vectors(self) -> bool:
        """Whether the first pass's vectors may be kept instead of a second pass."""
        ...

    @property
    def attention(self) -> str:
        """The attention backend that it runs under."""
        ...

    def measure(self, objective: UnitObjective) -> Measurement:
        """First pass: S, X_u and Y_u of one unit."""
        ...

    def score(self, objective: UnitObjective) -> tuple[Tensor, tuple[Tensor, ...]]:
        """S [N] and the tokens' log-probabilities without a graph: S⁺ at moved weights."""
        ...

    def contract(
        self,
        objective: UnitObjective,
        S: Tensor,
        x_directions: Sequence[ParameterVector],
        y_directions: Sequence[ParameterVector],
    ) -> tuple[list[float], list[float]]:
        """Second pass: X_u·v for each v of `x_directions`, Y_u·v for each of `y_directions`.

        `S` [N] is the first pass's: the weights are constants.
        """
        ...
