"""What a method of computing unit gradients offers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from torch import Tensor

from probe_engine.estimators.token_statistics import TokenScores, TokenStatistics
from probe_engine.model.unit_gradients.objective import UnitObjective
from probe_engine.vectors import ParameterVector, Share


class Receive(Protocol):
    """Takes a share of X, Y and, where it was asked for, X of (2b). Where nothing is said, there is no
    gradient (None)."""

    def __call__(
        self, share: Share, units: Sequence[int], x: Tensor, y: Tensor, x_rb: Tensor | None = None, /
    ) -> None:
        """
        Args:
            share: a parameter or some rows of it.
            units: by number.
            x: [units, *share's shape] in float32 or wider, the receiver's.
            y: likewise.
            x_rb: likewise.
        """
        ...


Passed = Callable[[int], object]
"""Is told how many tokens a forward pass, or what it was for, has just got done: units of one pass come out
one after the other, and would make it look slow at first."""


def untold(_tokens: int) -> None:
    """For callers that show no progress."""


class Dots(NamedTuple):
    """One unit's gradients along some directions."""

    x: list[float]
    """X_u·v for each v of the X directions"""
    y: list[float]
    """Y_u·v for each v of the Y directions"""
    x_rb: list[float]
    """X_u·v with X of (2b); empty where that was not asked for"""


@dataclass(frozen=True)
class Scored:
    """One unit under the model."""

    objective: UnitObjective
    S: Tensor
    """[N], float64, nats"""
    tokens: tuple[TokenStatistics, ...]
    """of each response"""


@dataclass(frozen=True)
class Rescored:
    """One unit under the model, scored and not differentiated."""

    objective: UnitObjective
    S: Tensor
    """[N], float64, nats"""
    tokens: tuple[TokenScores, ...]
    """of each response"""


@dataclass(frozen=True)
class Measurement(Scored):
    """One unit, measured."""

    x: ParameterVector
    y: ParameterVector
    x_rb: ParameterVector | None = None
    """X of (2b), where it was asked for"""


class UnitGradients(Protocol):
    """Two passes over the units; the second only where the vectors of the first were not kept.

    X is that of (2), which comes with Y; X of (2b), the Rao-Blackwell form, has a reverse pass of its own and
    is computed where it is asked for, which needs a λ that is constant.
    """

    @property
    def name(self) -> str:
        """As `--method` says it."""
        ...

    @property
    def keeps_vectors(self) -> bool:
        """Whether the first pass's vectors may be kept instead of a second pass, and (2b) have its own."""
        ...

    @property
    def attention(self) -> str:
        """The attention backend that it runs under."""
        ...

    @property
    def fallback_parameters(self) -> int:
        """Parameters that were left to autograd so far, one by one, by a method that means to do without."""
        ...

    def packs(self, units: Sequence[UnitObjective]) -> bool:
        """Whether sequences of these units share rows, so that nothing is padded and no prompt repeated."""
        ...

    def measure(self, objective: UnitObjective, *, rao_blackwell: bool = False) -> Measurement:
        """S, X_u and Y_u of one unit."""
        ...

    def measurements(
        self,
        units: Sequence[UnitObjective],
        receive: Receive,
        passed: Passed = untold,
        *,
        rao_blackwell: bool = False,
        hold: bool = False,
    ) -> Iterator[Scored]:
        """First pass over all units, numbered as they come, in their order.

        A unit is yielded once `receive` has got all of it: each parameter once, whole or its rows in their
        order.

        Args:
            units: all of them.
            receive: takes X and Y, and X of (2b).
            passed: is told of progress.
            rao_blackwell: whether X of (2b) is computed.
            hold: whether `contractions` of these units come next, at these weights: what would serve again,
                and takes no more memory than a pass, may be held for them.
        """
        ...

    def score(self, objective: UnitObjective) -> Scored:
        """S and token statistics of one unit, without a graph."""
        ...

    def scores(self, units: Sequence[UnitObjective], passed: Passed = untold) -> Iterator[Rescored]:
        """S⁺ and h⁺ at moved weights, of many units, in their order, and in the passes of `measurements`."""
        ...

    def contract(
        self,
        objective: UnitObjective,
        S: Tensor,
        x_directions: Sequence[ParameterVector],
        y_directions: Sequence[ParameterVector],
        tokens: Sequence[TokenStatistics] = (),
    ) -> Dots:
        """X_u·v for each v of `x_directions`, Y_u·v for each of `y_directions`.

        `S` [N] is the first pass's: the weights are constants. So are those of (2b), which its `tokens` give:
        without them X of (2b) is not contracted.
        """
        ...

    def contractions(
        self,
        scored: Sequence[Scored],
        x_directions: Sequence[ParameterVector],
        y_directions: Sequence[ParameterVector],
        passed: Passed = untold,
        *,
        rao_blackwell: bool = False,
    ) -> Iterator[Dots]:
        """Second pass over all units, in their order: of each what `contract` gives."""
        ...
