"""Advantages from rewards, as trl's GRPOTrainer normalises them."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean, stdev
from typing import Literal

EPSILON = 1e-4
"""Added to the standard deviation, as in trl."""


def advantages(
    rewards: Sequence[Sequence[float]], scale: Literal["group", "batch", "none"]
) -> list[list[float]]:
    """A[n,g] = (r[n,g] − mean_g r[n,·]) / (σ + 1e-4), σ the unbiased standard deviation.

    σ is that of the prompt's rewards ("group") or of all rewards ("batch"); "none" does not divide.
    Exact where all rewards of a group are equal: then A is 0, not a rounding error over 1e-4.

    Args:
        rewards: [B][G_n], finite, G_n ≥ 2.

    Returns:
        Advantages in the same order, [B][G_n].
    """
    pooled = stdev([r for group in rewards for r in group]) if scale == "batch" else 0.0
    result = []
    for group in rewards:
        centre = mean(group)
        centred = [r - centre for r in group]
        if scale != "none":
            divisor = (stdev(group) if scale == "group" else pooled) + EPSILON
            centred = [a / divisor for a in centred]
        result.append(centred)
    return result
