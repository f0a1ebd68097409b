"""Which responses are scored again after which step."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from probe_engine.model.unit_gradients import UnitObjective
from probe_engine.spec import StepKind
from probe_engine.stages.own_step import is_known
from probe_engine.stages.sweep import OTHER_SCALES
from probe_engine.types import Policy


def steps_taken(policy: Policy, steps: Collection[StepKind]) -> list[StepKind]:
    """The steps that are taken, the optimizer's own first; it is left out where it is not known."""
    own: list[StepKind] = ["adamw"] if "adamw" in steps and is_known(policy) else []
    return [*own, *(["preconditioned"] if "preconditioned" in steps else [])]  # type: ignore[list-item]


def scored(units: Sequence[UnitObjective], taken: Collection[StepKind]) -> list[UnitObjective]:
    """The units, each as often as it is scored: E after each step and at each scale of the sweep, all after
    each step on the same batch."""
    held_out = [u for u in units if u.unit.role == "E"]
    apart = 0 < len(held_out) < len(units)
    times = len(taken) + (len(OTHER_SCALES) if "preconditioned" in taken else 0)
    return held_out * (times if apart else 0) + [*units] * len(taken)
