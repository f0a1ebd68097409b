"""Advantages from rewards, as trl's GRPOTrainer normalises them; and which rule made logged ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import fsum
from statistics import mean, pstdev, stdev
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


@dataclass(frozen=True)
class Normalisation:
    """A rule that makes advantages of rewards."""

    name: str
    values: list[list[float]]


def normalisations(rewards: Sequence[Sequence[float]]) -> Iterator[Normalisation]:
    """The advantages that known rules make of these rewards, the usual rules first.

    Args:
        rewards: [B][G_n], finite, G_n ≥ 2.
    """
    centred = [[r - mean(group) for r in group] for group in rewards]
    yield Normalisation("difference from the group's mean", centred)
    for spread, ddof in ((stdev, 1), (pstdev, 0)):
        for epsilon in (EPSILON, 1e-6, 1e-8):
            yield Normalisation(
                f"difference from the group's mean over its standard deviation (ddof {ddof}) + {epsilon:g}",
                [[a / (spread(r) + epsilon) for a in c] for c, r in zip(centred, rewards, strict=True)],
            )
    yield Normalisation(
        "difference from the mean of the others (leave-one-out)",
        [[a * len(c) / (len(c) - 1) for a in c] for c in centred],
    )
    yield Normalisation("the reward itself", [list(group) for group in rewards])
    pooled = [r for group in rewards for r in group]
    centre, scale = mean(pooled), stdev(pooled) + EPSILON
    yield Normalisation(
        "difference from the batch's mean over its standard deviation",
        [[(r - centre) / scale for r in group] for group in rewards],
    )


def matching_normalisation(
    rewards: Sequence[Sequence[float]], advantages: Sequence[Sequence[float]], tolerance: float = 1e-2
) -> str | None:
    """The rule that makes these advantages of these rewards, the closest one; None where none does.

    The difference from the group's mean times a constant is a rule too: one over the standard deviation of
    a batch of which these rows are a part.

    Args:
        rewards: [B][G_n], finite, G_n ≥ 2.
        advantages: [B][G_n], finite.
        tolerance: largest difference over the largest advantage; logs are rounded.
    """
    rules = [*normalisations(rewards)]
    centred = rules[0].values
    norm = fsum(a * a for group in centred for a in group)
    factor = norm and fsum(a * b for a, b in _pairs(centred, advantages)) / norm
    if factor > 0:
        rules.append(
            Normalisation(
                f"difference from the group's mean times {factor:.4g}, as over a batch's standard deviation",
                [[factor * a for a in group] for group in centred],
            )
        )
    # min keeps the first of equals: rules that agree on these rewards go by their usual name.
    closest = min(rules, key=lambda rule: _farthest(rule.values, advantages))
    allowed = tolerance * max(abs(a) for group in advantages for a in group)
    return closest.name if _farthest(closest.values, advantages) <= allowed else None


def _farthest(ours: Sequence[Sequence[float]], theirs: Sequence[Sequence[float]]) -> float:
    return max(abs(a - b) for a, b in _pairs(ours, theirs))


def _pairs(
    ours: Sequence[Sequence[float]], theirs: Sequence[Sequence[float]]
) -> Iterator[tuple[float, float]]:
    for mine, other in zip(ours, theirs, strict=True):
        yield from zip(mine, other, strict=True)
