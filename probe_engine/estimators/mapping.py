"""How sure is it that each optimizer state lies on its own parameter?"""

from __future__ import annotations

import math
import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from probe_engine.estimators.ranks import centred_ranks, spearman
from probe_engine.registry import ParameterRegistry
from probe_engine.vectors import Share

ENTRIES = 4096
"""Entries of a parameter that are compared: enough for a correlation to ±0.02."""
FEW = 512
"""The same where a median over parameters is taken."""
PARAMETERS = 50
"""Parameters that are enough for it: an adapter has hundreds, and sorting is what costs."""


def mapping_correlation(
    exp_avg_sq: Sequence[Tensor | None], gradient: Sequence[Tensor | None]
) -> float | None:
    """Median over parameters, or PARAMETERS of them, of the Spearman correlation of exp_avg_sq with gradient²
    (formats.md).

    Both say which entries of a parameter have large gradients, so a right match correlates and a permutation
    among equal shapes does not.

    Args:
        exp_avg_sq: Adam's v, one tensor a parameter; None where there is no state.
        gradient: fresh gradients of the same parameters, of the same shapes; None where there is none.

    Returns:
        −1 … 1, or None where no parameter has three finite entries that differ in both.
    """
    known = [(index, v) for index, v in enumerate(exp_avg_sq) if v is not None]
    # Drawn, for a stride may meet nothing but lora_A; the same ones each time.
    among = random.Random(0).sample(known, min(len(known), PARAMETERS))
    # One gradient at a time: they may be made only as they are asked for.
    correlations = [
        spearman(_strided(v, FEW), _strided(g, FEW).square())
        for index, v in among
        if (g := gradient[index]) is not None
    ]
    usable = [c for c in correlations if c is not None]
    return median(usable) if usable else None


class GradientSquares:
    """Σ g² over fresh gradients, at the entries of each parameter that are compared.

    A sum of squares, not the square of a sum: v is a mean of squares, and one group's noise hides less of it.
    """

    def __init__(self, registry: ParameterRegistry) -> None:
        self._numels = [p.numel() for p in registry.parameters]
        self._sampled: list[Tensor | None] = [None] * len(registry)

    def add(self, share: Share, gradient: Tensor) -> None:
        """The gradient of one parameter, or some rows of it."""
        flat, at = gradient.detach().flatten(), _places(self._numels[share.parameter], ENTRIES)
        mine = self._sampled[share.parameter]
        if mine is None:
            mine = self._sampled[share.parameter] = torch.zeros(len(at), dtype=torch.float64)
        first = 0 if share.whole else share.start * (len(flat) // len(gradient))
        within = slice(*torch.searchsorted(at, torch.tensor([first, first + len(flat)])).tolist())
        mine[within] += flat[(at[within] - first).to(flat.device)].double().cpu().square()

    @property
    def sampled(self) -> tuple[Tensor | None, ...]:
        """At most ENTRIES numbers a parameter."""
        return tuple(self._sampled)


@dataclass(frozen=True)
class Assignment:
    """How well states and parameters fit, as they are and at best."""

    taken: float
    """Mean rank correlation of v with fresh g² in the order taken, weighted by √(entries compared)."""
    best: float
    """The same in the best order among equal shapes."""
    chance: float
    """What the best of k states of n entries would gain if they said nothing: √(2 ln k/(n − 1)), the
    largest of k normal numbers with a rank correlation's standard deviation; averaged like the others."""
    order: tuple[int, ...]
    """For each parameter the state that fits it in the best order."""


def best_assignment(exp_avg_sq: Sequence[Tensor], squares: Sequence[Tensor]) -> Assignment | None:
    """The order of the states among equal shapes that correlates most with fresh gradients².

    Args:
        exp_avg_sq: Adam's v, one tensor a parameter.
        squares: fresh gradients², at the entries that `GradientSquares` keeps.

    Returns:
        None where no two parameters have the same shape.
    """
    equal: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for index, v in enumerate(exp_avg_sq):
        equal[tuple(v.shape)].append(index)
    order = list(range(len(exp_avg_sq)))
    taken = best = chance = weights = 0.0
    for members in (group for group in equal.values() if len(group) > 1):
        fresh, states = (
            torch.stack([centred_ranks(x) for x in part])
            for part in ([squares[i] for i in members], [_strided(exp_avg_sq[i]) for i in members])
        )
        correlations = fresh @ states.T
        _, columns = linear_sum_assignment(correlations.numpy(), maximize=True)
        count, entries = fresh.shape
        weight = entries**0.5
        taken += weight * float(correlations.trace())
        best += weight * sum(float(correlations[i, j]) for i, j in enumerate(columns))
        chance += weight * count * math.sqrt(2 * math.log(count) / max(entries - 1, 1))
        weights += weight * count
        for i, j in enumerate(columns):
            order[members[i]] = members[j]
    if not weights:
        return None
    return Assignment(taken / weights, best / weights, chance / weights, tuple(order))


def _strided(x: Tensor, entries: int = ENTRIES) -> Tensor:
    """At most so many entries, first to last; a stride that is no divisor of the row misses no column."""
    flat = x.detach().flatten()
    return flat[_places(len(flat), entries).to(flat.device)].double().cpu()


def _places(n: int, entries: int) -> Tensor:
    k = min(n, entries)
    return torch.arange(k) * (n - 1) // max(k - 1, 1)
