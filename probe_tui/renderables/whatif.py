"""What another step would do, to entropy and to the effective sample size: approximate."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate

from probe_engine.report import RealizedRow, Sweep


def ess_at_scale(log_w: Sequence[float], scale: float, shares: Sequence[float] | None = None) -> float:
    """ESS/N = (Σpw)² / (Σp·Σpw²) with w = e^{scale·log w}: method.md (13), log-weights scaled with the step.

    Approximate: log w = S⁺ − S is linear in the step to first order only.

    Args:
        log_w: log-weights of the whole step.
        scale: of the step; 1 is the step that was taken.
        shares: p, each response's share in the mean, up to a factor; default: equal.

    Returns:
        0 … 1, or NaN where there are no weights or one of them is not finite.
    """
    p = [1.0] * len(log_w) if shares is None else shares
    if not log_w or not all(math.isfinite(scale * x) for x in log_w):
        return math.nan
    top = max(scale * x for x in log_w)
    w = [math.exp(scale * x - top) for x in log_w]
    weighted = math.fsum(a * b for a, b in zip(p, w, strict=True))
    squares = math.fsum(a * b * b for a, b in zip(p, w, strict=True))
    return weighted * weighted / (math.fsum(p) * squares)


def row_ess_at_scale(row: RealizedRow, scale: float) -> float:
    """`ess_at_scale` of a measured row; each unit has the same share, whatever its number of responses."""
    weighed = [(x, 1 / len(unit.log_w)) for unit in row.units for x in unit.log_w]
    log_w = [math.nan if x is None else x for x, _ in weighed]
    return ess_at_scale(log_w, scale, [share for _, share in weighed])


def ess_without(row: RealizedRow) -> list[float]:
    """ESS/N of a measured row's other units where one unit in turn is left out: who eats the ESS.

    The engine's `ess_fraction_without`, which STAT001 goes by; NaN where a weight is not finite or nothing is
    left.
    """
    log_w = [[math.nan if x is None else x for x in unit.log_w] for unit in row.units]
    top = max((x for unit in log_w for x in unit), default=0.0)
    if not all(math.isfinite(x) for unit in log_w for x in unit):
        return [math.nan] * len(log_w)
    w = [[math.exp(x - top) for x in unit] for unit in log_w]
    # Each unit has the share 1 in the mean, whatever its number of responses.
    first = [math.fsum(unit) / len(unit) if unit else 0.0 for unit in w]
    second = [math.fsum(x * x for x in unit) / len(unit) if unit else 0.0 for unit in w]
    share = [1.0 if unit else 0.0 for unit in w]
    rows = zip(*map(_others, (share, first, second)), strict=True)
    return [a * a / (c * b) if c * b else math.nan for c, a, b in rows]


def _others(values: Sequence[float]) -> list[float]:
    """The sum of all values but each one; added up from both ends, so that nothing cancels."""
    before = accumulate(values, initial=0.0)
    behind = [*accumulate(reversed(values), initial=0.0)][::-1]
    return [a + b for a, b in zip(before, behind[1:], strict=False)]


def change_at_scale(sweep: Sweep, scale: float) -> tuple[float, float] | None:
    """k·δH₁ and k²·C, which add up to the entropy change at k times the step that was swept.

    The second is 0 where the sweep tells no curvature; None where it holds no prediction.
    """
    whole = next((p.predicted for p in sweep.points if p.scale == 1), None)
    if whole is None:
        return None
    return scale * whole, scale * scale * (sweep.curvature or 0.0)
