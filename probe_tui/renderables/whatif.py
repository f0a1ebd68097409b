"""What another step would do, to entropy and to the effective sample size: approximate."""

from __future__ import annotations

import math
from collections.abc import Sequence

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


def change_at_scale(sweep: Sweep, scale: float) -> tuple[float, float] | None:
    """k·δH₁ and k²·C, which add up to the entropy change at k times the step that was swept.

    The second is 0 where the sweep tells no curvature; None where it holds no prediction.
    """
    whole = next((p.predicted for p in sweep.points if p.scale == 1), None)
    if whole is None:
        return None
    return scale * whole, scale * scale * (sweep.curvature or 0.0)
