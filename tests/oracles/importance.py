"""Importance sampling of method.md §6, one response at a time in plain floats, any sizes."""

from __future__ import annotations

from dataclasses import dataclass
from math import exp


@dataclass(frozen=True)
class Response:
    """One re-scored response and where it belongs."""

    S: float
    S_plus: float
    lam: float
    unit: int
    group: int


def shares(responses: list[Response]) -> list[float]:
    """Share of each in the mean over units of means over prompts of means over responses."""
    units = {r.unit for r in responses}
    groups = {u: {r.group for r in responses if r.unit == u} for u in units}
    sizes = {r.group: sum(q.group == r.group for q in responses) for r in responses}
    return [1 / (len(units) * len(groups[r.unit]) * sizes[r.group]) for r in responses]


def snis(responses: list[Response]) -> float:
    """ΔĤ of (13)."""
    p = shares(responses)
    mass = [share * exp(r.S_plus - r.S) for share, r in zip(p, responses, strict=True)]
    after = -sum(m * r.lam * r.S_plus for m, r in zip(mass, responses, strict=True)) / sum(mass)
    before = -sum(share * r.lam * r.S for share, r in zip(p, responses, strict=True))
    return after - before


def snis_se(responses: list[Response]) -> float:
    """SE of (14): influences averaged within a unit, variance over units."""
    p = shares(responses)
    mass = [share * exp(r.S_plus - r.S) for share, r in zip(p, responses, strict=True)]
    after = -sum(m * r.lam * r.S_plus for m, r in zip(mass, responses, strict=True)) / sum(mass)
    before = -sum(share * r.lam * r.S for share, r in zip(p, responses, strict=True))
    by_unit: dict[int, float] = {}
    B = len({r.unit for r in responses})
    for share, m, r in zip(p, mass, responses, strict=True):
        influence = m / sum(mass) / share * (-r.lam * r.S_plus - after) - (-r.lam * r.S - before)
        by_unit[r.unit] = by_unit.get(r.unit, 0.0) + B * share * influence
    mean = sum(by_unit.values()) / B
    return (sum((v - mean) ** 2 for v in by_unit.values()) / (B - 1) / B) ** 0.5


def matched(responses: list[Response]) -> float:
    """ΔĤ of (15)."""
    total = 0.0
    for share, (i, r) in zip(shares(responses), enumerate(responses), strict=True):
        others = [q for j, q in enumerate(responses) if q.group == r.group and j != i]
        b = sum((q.S + 1) * q.lam for q in others) / len(others)
        w = exp(r.S_plus - r.S)
        total -= share * (w * r.lam * r.S_plus - r.lam * r.S - b * (w - 1))
    return total
