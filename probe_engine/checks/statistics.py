"""STAT: can the numbers be trusted?"""

from __future__ import annotations

from probe_engine.estimators.importance import ess_status, khat_threshold
from probe_engine.report import Finding, RealizedRow, UStatistic, finding


def sample_size(rows: list[RealizedRow]) -> Finding:
    """STAT001, on the pairing with the smaller ESS."""
    row = min(rows, key=lambda r: r.ess_fraction or 0.0)
    fraction = row.ess_fraction or 0.0
    status = ess_status(fraction)
    line = f"ESS = {row.ess or 0:.1f} of {row.N} responses ({fraction:.0%}), {_pairing(row)} step"
    if status == "ok":
        return finding("STAT001", "ok", line, value=fraction, threshold=0.5)
    return finding(
        "STAT001",
        status,
        f"{line}: expected at least {'half' if status == 'warn' else '30%'}; few responses carry the "
        "measured change, so its standard error can't be believed",
        value=fraction,
        threshold=0.5 if status == "warn" else 0.3,
    )


def tail(rows: list[RealizedRow]) -> Finding:
    """STAT002, on the pairing with the larger k̂."""
    known = [(r.khat, r) for r in rows if r.khat is not None]
    if not known:
        return finding("STAT002", "skip", "k̂ needs 25 responses or more whose weights differ")
    khat, row = max(known, key=lambda pair: pair[0])
    threshold = khat_threshold(row.N)
    line = f"k̂ = {khat:.2f} of {row.N} weights, {_pairing(row)} step"
    if khat <= threshold:
        return finding("STAT002", "ok", line, value=khat, threshold=threshold)
    return finding(
        "STAT002",
        "fail" if khat >= 1 else "warn",
        f"{line}: expected at most {threshold:.2f}; the weights' "
        f"{'mean' if khat >= 1 else 'variance'} is not under control",
        value=khat,
        threshold=threshold,
    )


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


def _pairing(row: RealizedRow) -> str:
    return row.pairing.replace("_", "-")
