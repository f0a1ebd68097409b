"""Student-t intervals, and the sample size at which one would exclude 0."""

from __future__ import annotations

import math
from collections.abc import Callable

from scipy.special import stdtrit

NEVER = 2**50
"""A sample size beyond this is reported as none at all."""


def t_quantile(df: float) -> float:
    """97.5% quantile of Student's t: the half-width of a 95% interval, in standard errors."""
    return float(stdtrit(df, 0.975))


def t_interval(value: float, se: float | None, df: float | None) -> tuple[float, float] | None:
    """95% interval `value ± t_df·se`; None where an input is missing or not finite, or df is not positive."""
    if se is None or df is None or not df > 0 or not (math.isfinite(value) and math.isfinite(se)):
        return None
    half_width = t_quantile(df) * se
    return value - half_width, value + half_width


def smallest_size(effect: float, half_width: Callable[[int], float], start: int) -> int | None:
    """Smallest n ≥ `start` whose interval excludes 0: |effect| > half_width(n).

    Args:
        effect: the estimate, supposed to stay where it is.
        half_width: of the interval at size n, in the effect's unit; falls with n.
        start: the smallest size that has an interval.

    Returns:
        n, or None where the effect is 0 or not finite, or n would be astronomical.
    """
    if effect == 0 or not math.isfinite(effect):
        return None
    low, high = start - 1, start
    while not abs(effect) > half_width(high):
        low, high = high, 2 * high
        if high > NEVER:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        if abs(effect) > half_width(middle):
            high = middle
        else:
            low = middle
    return high
