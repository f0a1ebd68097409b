"""Does a method give on one unit what plain autograd gives?"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from probe_engine.errors import memory_ran_out
from probe_engine.model.preconditioner import Preconditioner
from probe_engine.model.unit_gradients.interface import Measurement, Scored, UnitGradients
from probe_engine.model.unit_gradients.loop import Loop
from probe_engine.model.unit_gradients.objective import UnitObjective
from probe_engine.model.unit_gradients.received import handed_over, measured_together
from probe_engine.vectors import ParameterVector, Share, inner

NOTHING_LEFT = 0.1
"""Share of X's weights that rounding of S may change: beyond it they are differences of nearly equal S."""


@dataclass(frozen=True)
class Agreement:
    """Relative errors of one method on one unit, by what was compared."""

    unit_id: str
    errors: Mapping[str, float] = field(default_factory=dict)
    """‖ours − theirs‖/‖theirs‖ of S, X and Y; of contractions |ours − theirs|/(‖vector‖·‖direction‖).
    Of X and its contractions less what the difference of S alone makes of X's weights; and ‖theirs‖ is there
    what X would be if its gradients of S did not cancel, as Y shows them.
    Empty where plain autograd gives nothing to compare with: no gradient, one that is not finite, or X of
    other parameters than Y."""
    raised: str = ""
    """What the method raised instead of a number."""
    ours: tuple[Measurement, ...] = ()
    """What the method gave of the unit and of those beside it, where there are such."""

    @property
    def worst(self) -> tuple[str, float]:
        """The largest error and what it is of; nan counts as infinite."""
        return max(
            ((name, math.inf if math.isnan(e) else e) for name, e in self.errors.items()), key=lambda e: e[1]
        )


def agreement(
    method: UnitGradients,
    plain: Loop,
    objective: UnitObjective,
    p: Preconditioner,
    scales: Sequence[float] = (1.0,),
    *,
    rao_blackwell: bool = False,
    second_pass: bool = True,
    theirs: Measurement | None = None,
    beside: Sequence[UnitObjective] = (),
) -> Agreement:
    """The passes of `method` against the first pass of `plain`.

    The second pass contracts with the unit's own X and Y, along which nothing cancels, and with P Y and
    P X, whose size is that of the run's own directions. Of a Y that cancels nothing is compared, nor of an
    X whose responses have the same S up to rounding.

    Args:
        scales: by which the unit's weights are lifted; the first one counts that keeps `plain` finite.
            Plain autograd carries small weights through the model, and 16 bits lose them there.
        rao_blackwell: whether X of (2b) is compared as well.
        second_pass: whether contractions are.
        theirs: what `plain` gives of the unit as it is, where that is known.
        beside: units that share the first pass with it, as they do in a run.
    """
    for scale in scales:
        lifted = objective.lifted(scale)
        known = theirs if scale == 1 else None
        reference = known or plain.measure(lifted, rao_blackwell=rao_blackwell)
        x, y = reference.x, reference.y
        directions = (p(x), p(y)) if second_pass else ()
        sizes = [v.norm() for v in (x, y, *directions)]
        if all(map(math.isfinite, sizes)):
            break
    else:
        return Agreement(objective.unit.id)
    if not (x.norm() or y.norm()) or x.non_none != y.non_none:
        return Agreement(objective.unit.id)
    objective = lifted
    x_directions, y_directions = [x, p(y)], [y, p(x)]
    differences, together = _Differences(reference), list[Measurement]()
    ours: Scored
    try:
        if beside:
            units = [objective, *beside]
            together = measured_together(method, plain.registry, units, rao_blackwell=rao_blackwell)
            ours = together[0]
            handed_over(0, together[0], differences)
        else:  # where vectors are large no second one is held
            (ours,) = method.measurements([objective], differences, rao_blackwell=rao_blackwell)
        tokens = ours.tokens if rao_blackwell else ()
        dots = method.contract(objective, ours.S, x_directions, y_directions, tokens) if second_pass else None
    except RuntimeError as error:
        # What torch raises where a derivative of a derivative does not exist.
        if memory_ran_out(error):
            raise
        return Agreement(objective.unit.id, raised=str(error).strip().split("\n")[0][:200])
    errors = {"S": float((ours.S - reference.S).abs().max() / reference.S.abs().max())}
    # X's weights are differences of S: where those are small, S that agree to the last digits move X.
    moved = _weights_moved(objective, ours, reference)
    if moved <= NOTHING_LEFT:
        # Responses that begin alike leave little of X, and rounding of what cancels is relative to that.
        size = max(x.norm(), _weighed_as_x(objective, reference))
        errors["X"] = _beyond(moved, differences.relative(0, size))
        if dots is not None:
            errors["X·v"] = _beyond(moved, _contracted(x, x_directions, dots.x, size))
    if reference.x_rb is not None and rao_blackwell:
        errors["X of (2b)"] = differences.relative(2)
        if dots is not None:
            errors["X of (2b)·v"] = _contracted(reference.x_rb, x_directions, dots.x_rb)
    if not objective.y_cancels:
        errors["Y"] = differences.relative(1)
        if dots is not None:
            errors["Y·v"] = _contracted(y, y_directions, dots.y)
    return Agreement(objective.unit.id, errors, ours=tuple(together))


class _Differences:
    """‖ours − theirs‖ of X, Y and X of (2b), from ours as they come."""

    def __init__(self, theirs: Measurement) -> None:
        self._theirs = (theirs.x, theirs.y, theirs.x_rb)
        self._squares = [0.0, 0.0, 0.0]
        self._came: tuple[set[int], ...] = (set(), set(), set())

    def __call__(
        self, share: Share, _units: Sequence[int], x: Tensor, y: Tensor, x_rb: Tensor | None = None, /
    ) -> None:
        """Takes in a share of one unit's."""
        for kind, parts in enumerate((x, y, x_rb)):
            if parts is not None:
                self._add(kind, share, parts[0])

    def relative(self, kind: int, size: float | None = None) -> float:
        """To that size, or to theirs; what never came is 0."""
        theirs = self._theirs[kind]
        assert theirs is not None
        missing = [t for i, t in enumerate(theirs.tensors) if t is not None and i not in self._came[kind]]
        square = self._squares[kind] + sum(inner(t, t) for t in missing)
        return _relative(square**0.5, theirs.norm() if size is None else size)

    def _add(self, kind: int, share: Share, ours: Tensor) -> None:
        self._came[kind].add(share.parameter)
        vector = self._theirs[kind]
        theirs = None if vector is None else vector.share(share)
        difference = ours if theirs is None else ours - theirs
        self._squares[kind] += inner(difference, difference)


def _weights_moved(objective: UnitObjective, ours: Scored, theirs: Scored) -> float:
    """‖difference‖/‖theirs‖ of the weights of X; 0 where S is no number, which its own error says."""
    weights, expected = (objective.weights(measured.S)[0] for measured in (ours, theirs))
    moved = _relative(float((weights - expected).norm()), float(expected.norm()))
    return 0.0 if math.isnan(moved) else moved


def _weighed_as_x(objective: UnitObjective, theirs: Measurement) -> float:
    """‖Y‖ with weights of the size of X's."""
    wx, wy = objective.weights(theirs.S)
    return theirs.y.norm() * float(wx.norm() / wy.norm()) if wy.any() else 0.0


def _beyond(explained: float, error: float) -> float:
    return error if math.isnan(error) else max(0.0, error - explained)


def _contracted(
    vector: ParameterVector,
    directions: Sequence[ParameterVector],
    dots: Sequence[float],
    size: float | None = None,
) -> float:
    size = vector.norm() if size is None else size
    errors = [
        _relative(abs(dot - vector.dot(direction)), size * direction.norm())
        for direction, dot in zip(directions, dots, strict=True)
    ]
    return math.nan if any(map(math.isnan, errors)) else max(errors)


def _relative(error: float, size: float) -> float:
    """0 where both are 0."""
    return error / size if size else (math.inf if error else 0.0)
