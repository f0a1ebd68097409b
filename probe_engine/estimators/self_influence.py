"""Self-influence: what a step does to the prompts that it was made from, beyond what it does to others."""

from __future__ import annotations

import math

from torch import Tensor


def self_influence(same_batch: Tensor, held_out: Tensor, evaluating: Tensor) -> tuple[float, float | None]:
    """ΔĤ same-batch − ΔĤ held-out, and its standard error over units, both steps given.

    A unit of E is in both means: with B units, B_E of them in E, its part is d_n·B_E/B − d'_n, that of a unit
    of U is d_n·B_U/B, and the difference is the sum of the means over E and over U of these.

    Args:
        same_batch: d of all units, [B].
        held_out: d' of those of E, [B_E], in the same order.
        evaluating: whether a unit is of E, bool [B].

    Returns:
        The error is None where a role has one unit.
    """
    share = float(evaluating.double().mean())
    parts = (share * same_batch[evaluating] - held_out, (1 - share) * same_batch[~evaluating])
    value = sum(float(part.mean()) for part in parts)
    if min(map(len, parts)) < 2:
        return value, None
    return value, math.sqrt(sum(float(part.var()) / len(part) for part in parts))
