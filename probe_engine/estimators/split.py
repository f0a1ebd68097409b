"""δH₁ from a split batch: E evaluates, U updates.

s_n   X_n·μ_Y, n ∈ E, with μ_Y = mean_{m∈U} P Y_m     [B_E]
t_m   μ_X·P Y_m, m ∈ U, with μ_X = mean_{n∈E} X_n     [B_U]
η     learning rate; s and t come without it
"""

from __future__ import annotations

import math

from torch import Tensor

from probe_engine.estimators.intervals import smallest_size, t_interval, t_quantile
from probe_engine.report import SplitEstimate


def split_estimate(s: Tensor, t: Tensor, eta: float) -> SplitEstimate:
    """δH₁ = η·mean s with both variances, method.md (11)(12).

    Var_E = η²·var(s)/B_E, given U; Var_U = η²·var(t)/B_U; SE = √(Var_E + Var_U), with
    Welch–Satterthwaite degrees of freedom.

    Args:
        s: [B_E], without η.
        t: [B_U], without η.
        eta: η.

    Returns:
        Sums of s without η, everything else with it. A side of one unit has no variance: it is None, and
        with it error and interval. `prompts_needed` counts the units of both sides, split as here.

    Raises:
        ValueError: a side without units.
    """
    B_E, B_U = len(s), len(t)
    if not B_E or not B_U:
        raise ValueError(f"a split needs a unit on either side, got {B_E} in E and {B_U} in U")
    s, t = s.double(), t.double()
    mean_s = float(s.mean())
    var_s = float(s.var()) if B_E > 1 else None
    var_t = float(t.var()) if B_U > 1 else None
    delta = eta * mean_s
    var_e = None if var_s is None else eta * eta * var_s / B_E
    var_u = None if var_t is None else eta * eta * var_t / B_U

    se = df = prompts_needed = None
    if var_s is not None and var_t is not None:
        a, b = var_s / B_E, var_t / B_U
        se = eta * math.sqrt(a + b)
        df = welch_df(a, B_E, b, B_U)

        def half_width(size: int) -> float:
            scale = size / (B_E + B_U)
            df_there = welch_df(a, scale * B_E, b, scale * B_U)
            return 0.0 if df_there is None else t_quantile(df_there) * math.sqrt((a + b) / scale)

        # Two units on the smaller side are the least that has a variance.
        start = math.ceil(2 * (B_E + B_U) / min(B_E, B_U))
        prompts_needed = smallest_size(mean_s, half_width, start)

    return SplitEstimate(
        delta_h1=delta,
        se=se,
        se_conditional=None if var_e is None else math.sqrt(var_e),
        var_e=var_e,
        var_u=var_u,
        mean_s=mean_s,
        sum_s=float(s.sum()),
        sum_s2=float(s.square().sum()),
        B_E=B_E,
        B_U=B_U,
        df=df,
        ci95=t_interval(delta, se, df),
        prompts_needed=prompts_needed,
    )


def welch_df(a: float, n_a: float, b: float, n_b: float) -> float | None:
    """Welch–Satterthwaite degrees of freedom of a + b, method.md (12).

    Args:
        a, b: variances of two independent means, up to a common factor.
        n_a, n_b: their sample sizes, > 1.

    Returns:
        (a + b)² / ( a²/(n_a − 1) + b²/(n_b − 1) ), or None where neither side varies.
    """
    total = a + b
    if total == 0:
        return None
    # Shares, since squares of small variances underflow.
    return 1 / ((a / total) ** 2 / (n_a - 1) + (b / total) ** 2 / (n_b - 1))
