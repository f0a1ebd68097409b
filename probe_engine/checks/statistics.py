"""STAT: can the numbers be trusted?"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from probe_engine.estimators.weights import ess_status
from probe_engine.report import Finding, RealizedRow, Sweep, UStatistic, finding

MOST = 0.5
"""More than this share is most of it."""
EXCERPT = 48
"""Characters of a prompt in a message."""


def interval(estimate: UStatistic) -> Finding:
    """STAT003: does the interval of δH₁ exclude 0?"""
    low, high = estimate.ci95 or (None, None)
    if low is None or high is None:
        return finding("STAT003", "skip", f"no interval from B = {estimate.B} units")
    line = f"δH₁ = {estimate.delta_h1:.3g}, 95% interval [{low:.3g}, {high:.3g}]"
    if low > 0 or high < 0:
        return finding("STAT003", "ok", line, value=estimate.delta_h1)
    would = (
        f"about {estimate.prompts_needed} units would do if the effect is as large as it looks"
        if estimate.prompts_needed
        else "no number of prompts would do for an effect of exactly 0"
    )
    return finding(
        "STAT003",
        "info",
        f"{line} covers 0: the sign is not known from {estimate.B} units; {would}",
        value=estimate.delta_h1,
    )


def first_order(sweep: Sweep) -> Finding:
    """STAT004: does first order hold at this step's length?"""
    point = next(p for p in sweep.points if p.scale == 1)
    reach, tried = sweep.linear_range, max(sweep.scales)
    if not any(p.predicted or p.delta_h for p in sweep.points):
        return finding("STAT004", "skip", "the step is 0: there is nothing to bend")
    if reach is None or (
        reach < 1 and ess_status(point.ess_fraction or 0.0) == "fail" and reach in sweep.scales
    ):
        return finding("STAT004", "skip", "waits for STAT001: the weights are too uneven to see curvature")
    if reach >= tried:
        return finding(
            "STAT004", "ok", f"first order holds up to {tried:g} × this step, the longest tried", value=reach
        )
    if reach in sweep.scales:
        seen = f"first order holds up to {reach:g} × this step; beyond, the weights are too uneven to see it"
        return finding("STAT004", "ok", seen, value=reach)
    line = f"the linear range ends at {reach:.2g} of this step"
    if reach >= 1:
        return finding("STAT004", "ok", line, value=reach, threshold=1)
    return finding(
        "STAT004",
        "warn",
        f"expected ΔĤ in proportion to the step, {point.predicted or 0:.3g} for all of it; saw "
        f"{point.delta_h or 0:.3g}: {line}, and beyond it δH₁ tells no size",
        value=reach,
        threshold=1,
    )


def degeneracy(estimate: UStatistic) -> Finding:
    """STAT005: is the error of the U-statistic that of its projection? method.md (10)."""
    zeta1, zeta2, B = estimate.zeta1, estimate.zeta2, estimate.B
    if zeta1 is None or zeta2 is None:
        missing = "the pairs, and the unit vectors were not kept" if B > 2 else "3 units or more"
        return finding("STAT005", "skip", f"ζ₂ needs {missing}")
    units, pairs = 4 * zeta1 / B, 2 * zeta2 / (B * (B - 1))
    ratio = units / pairs if pairs > 0 else math.inf
    line = f"4ζ₁/B = {units:.3g}, 2ζ₂/(B(B−1)) = {pairs:.3g}"
    if units >= pairs:
        return finding("STAT005", "ok", line, value=ratio, threshold=1)
    return finding(
        "STAT005",
        "warn",
        f"expected the units' own spread to carry the error of U_cross, found {line}: the noise of single "
        f"pairs is larger, the jackknife does not see it, and the 95% interval from B = {B} is too narrow",
        value=ratio,
        threshold=1,
    )


def concentration(
    ids: Sequence[str], x_shares: Sequence[float], y_shares: Sequence[float], prompts: Mapping[str, str]
) -> Finding:
    """STAT006: does one unit carry most of δH₁?

    Args:
        ids: of the units.
        x_shares: of each one's entropy gradient in Σ|X_n·PȲ_{−n}|.
        y_shares: of each one's policy gradient in Σ|P Y_n·X̄_{−n}|.
        prompts: by id.
    """
    if not any(x_shares) or not any(y_shares):
        return finding("STAT006", "skip", "no unit contributes: δH₁ is 0")
    sides = [("whose entropy moves", x_shares), ("that is trained on", y_shares)]
    share, unit, side = max(
        (share, unit, side) for side, shares in sides for unit, share in zip(ids, shares, strict=True)
    )
    named = f"unit {unit} ({_excerpt(prompts[unit])!r})"
    if share <= MOST:
        return finding(
            "STAT006",
            "ok",
            f"{named} carries most, {share:.0%} as the one {side}, of what units do through others",
            value=share,
            threshold=MOST,
        )
    return finding(
        "STAT006",
        "warn",
        f"expected many units to carry δH₁, {named} as the one {side} carries {share:.0%} of what {len(ids)} "
        "units do through others (Σ|contributions|, without each one's own on itself): δH₁ is about this "
        "unit, and its standard error can't be believed",
        value=share,
        threshold=MOST,
        evidence={"unit": unit},
    )


def _excerpt(prompt: str) -> str:
    line = " ".join(prompt.split())
    return line if len(line) <= EXCERPT else f"{line[: EXCERPT - 1]}…"


def self_influence(share: float | None, same_batch: RealizedRow, held_out: RealizedRow) -> Finding:
    """STAT008: is the same-batch change mostly each unit's own doing?"""
    line = (
        f"ΔĤ = {same_batch.delta_h or 0:.3g} same-batch, {held_out.delta_h or 0:.3g} held-out; "
        f"{'—' if share is None else f'{share:.0%}'} of η·X̄·PȲ is the diagonal X_n·P Y_n"
    )
    if share is None or abs(share) <= MOST:
        return finding("STAT008", "ok", line, value=share, threshold=MOST)
    return finding(
        "STAT008",
        "info",
        f"{line}: what the step does to this batch is mostly what each unit's own gradient does to that "
        "unit; the held-out change is the one that tells of other prompts",
        value=share,
        threshold=MOST,
    )
