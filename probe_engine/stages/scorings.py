"""Which steps are taken, and what is scored again after them."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from probe_engine.model.unit_gradients import UnitObjective
from probe_engine.spec import StepKind
from probe_engine.stages.own_step import is_known
from probe_engine.stages.sweep import OTHER_SCALES
from probe_engine.types import Policy
from probe_engine.vectors import wide


def steps_taken(policy: Policy, steps: Collection[StepKind]) -> list[StepKind]:
    """The optimizer's own step first; it is left out where it is not known."""
    known: dict[StepKind, bool] = {"adamw": is_known(policy), "preconditioned": True}
    return [step for step, is_there in known.items() if is_there and step in steps]


def widened(policy: Policy) -> bool:
    """Whether steps are taken on float32 copies of the weights: S is then scored anew with them."""
    return any(p.dtype != wide(p.dtype) for p in policy.model.parameters())


def scorings(
    units: Sequence[UnitObjective], taken: Collection[StepKind], *, sweeping: bool, narrow: bool
) -> list[Sequence[UnitObjective]]:
    """The units of each scoring: E after each step from U, and at the first one's other scales where that is
    `sweeping`; all units after each step from all, and once before where weights are `narrow`."""
    held_out: Sequence[UnitObjective] = [u for u in units if u.unit.role == "E"]
    apart = 0 < len(held_out) < len(units)
    times = len(taken) + (len(OTHER_SCALES) if taken and sweeping else 0)
    return [held_out] * (times if apart else 0) + [units] * (len(taken) + narrow)
