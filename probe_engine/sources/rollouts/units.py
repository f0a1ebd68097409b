"""Groups to units, and units to the roles E and U (method.md §4)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Literal

import numpy as np

from probe_engine.types import Group, Role, Unit


def units_of(
    groups: Sequence[Group], kind: Literal["prompt", "block"], block_size: int, split: float, seed: int
) -> tuple[Unit, ...]:
    """B units with their roles. The roles depend on the units' ids and the seed, not on the file's order.

    `prompt`: each group is a unit, in the order given. `block`: groups sorted by id, k consecutive
    ones a unit; what k leaves over forms a last, smaller one.

    Args:
        split: the share of units that evaluate.
    """
    members: list[tuple[str, tuple[Group, ...]]]
    if kind == "prompt":
        members = [(group.id, (group,)) for group in groups]
    else:
        ordered = sorted(groups, key=lambda group: group.id)
        blocks = [tuple(ordered[i : i + block_size]) for i in range(0, len(ordered), block_size)]
        members = [(_block_id(block), block) for block in blocks]
    evaluating = _evaluating(sorted(id_ for id_, _ in members), split, seed)
    return tuple(Unit(id_, _role(id_ in evaluating), block) for id_, block in members)


def _evaluating(ids: list[str], split: float, seed: int) -> set[str]:
    if len(ids) < 2:
        return set(ids)
    count = min(max(round(split * len(ids)), 1), len(ids) - 1)
    order = np.random.default_rng(seed).permutation(len(ids))
    return {ids[index] for index in order[:count]}


def _role(evaluates: bool) -> Role:
    return "E" if evaluates else "U"


def _block_id(block: Sequence[Group]) -> str:
    return hashlib.sha256(" ".join(group.id for group in block).encode()).hexdigest()[:16]
