"""STAT001 and STAT002: do a few importance weights carry what was measured?"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from probe_engine.estimators.weights import (
    ESS_FAIL,
    ESS_WARN,
    EVEN,
    Level,
    ess,
    ess_fraction_without,
    ess_status,
    khat_status,
    khat_threshold,
)
from probe_engine.report import Finding, RealizedRow, finding

HALVINGS = 30
"""Of the interval in which a scale is looked for."""
RESAMPLE = "probe-tui CHECKPOINT --resample"
STAND_IN = "fresh responses, sampled after the step, stand in for them"
NOTHING_TO_MEND = "Nothing to mend: read the row `resample`, as the verdict does."


def sample_size(rows: Sequence[RealizedRow], eta: float, hindrance: str = "") -> Finding:
    """STAT001, on the step and pairing with the smaller ESS.

    Its remedy names a learning rate that keeps half of N, and `--resample` where that can be done.

    Args:
        rows: all that was measured, with something of `snis` among them.
        eta: the learning rate of the step.
        hindrance: why responses can't be sampled here; empty where they can.
    """
    weighted, replaced = _by_replacement(rows)
    row = min(weighted, key=_fraction, default=None)
    stands = row is not None and ess_status(_fraction(row)) != "ok"
    if row is None or (replaced and not stands):
        row = min(replaced, key=_fraction)
    fraction = _fraction(row)
    status = ess_status(fraction)
    line = f"ESS = {row.ess or 0:.1f} of {row.N} responses ({fraction:.0%}), {_pairing(row)} step"
    limit = ESS_FAIL if status == "fail" else ESS_WARN
    if status == "ok":
        return finding("STAT001", "ok", line, value=fraction, threshold=limit)
    if row in replaced:
        return finding(
            "STAT001",
            "info",
            f"{line}, below {limit:.0%}; {STAND_IN}",
            value=fraction,
            threshold=limit,
            remedy=NOTHING_TO_MEND,
            commands=(),
        )
    return finding(
        "STAT001",
        status,
        f"{line}: expected at least {limit:.0%}; few responses carry the measured change, so its standard "
        f"error can't be believed{_eater(row)}",
        value=fraction,
        threshold=limit,
        remedy=f"A smaller step keeps the weights even.{_other_way(status, hindrance)}",
        commands=(
            f"probe-tui CHECKPOINT --lr {_smaller(eta, shrunk(row))}",
            *([RESAMPLE] if status == "fail" and not hindrance else []),
        ),
    )


def tail(rows: Sequence[RealizedRow], hindrance: str = "") -> Finding:
    """STAT002, on the step and pairing with the larger k̂, those with uneven weights first.

    Args:
        rows: all that was measured.
        hindrance: why responses can't be sampled here; empty where they can.
    """
    weighted, replaced = _by_replacement(rows)
    row = _heaviest(weighted)
    stands = row is not None and _khat_status(row) != "ok"
    if not stands:
        row = _heaviest(replaced) or row
    if row is None or row.khat is None:
        return finding("STAT002", "skip", "k̂ needs 25 responses or more whose weights differ")
    status, threshold = _khat_status(row), khat_threshold(row.N)
    line = f"k̂ = {row.khat:.2f} of {row.N} weights, {_pairing(row)} step"
    if row.khat <= threshold:
        return finding("STAT002", "ok", line, value=row.khat, threshold=threshold)
    if status == "ok":
        return finding(
            "STAT002",
            "info",
            f"{line}, above {threshold:.2f}; but ESS/N = {_fraction(row):.1%}: the weights hardly "
            "differ, so their tail carries next to nothing",
            value=row.khat,
            threshold=threshold,
            remedy="Nothing to mend: k̂ is a shape without a scale, and these weights have none worth one.",
            commands=(),
        )
    if row in replaced:
        return finding(
            "STAT002",
            "info",
            f"{line}, above {threshold:.2f}; {STAND_IN}",
            value=row.khat,
            threshold=threshold,
            remedy=NOTHING_TO_MEND,
            commands=(),
        )
    return finding(
        "STAT002",
        status,
        f"{line}: expected at most {threshold:.2f}; the weights' "
        f"{'mean' if status == 'fail' else 'variance'} is not under control",
        value=row.khat,
        threshold=threshold,
        remedy=f"A smaller step, or more responses.{_other_way(status, hindrance)}",
        commands=(RESAMPLE,) if status == "fail" and not hindrance else (),
    )


def shrunk(row: RealizedRow) -> float:
    """The share of the step at which ESS/N is still one half, to first order: log w scales with the step.

    A tenth where the weights don't tell.
    """
    log_w, shares, _ = _weights(row)
    if not len(log_w):
        return 0.1
    low, high = 0.0, 1.0
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        enough = ess(middle * log_w, shares) >= len(log_w) / 2
        low, high = (middle, high) if enough else (low, middle)
    return low


def _weights(row: RealizedRow) -> tuple[Tensor, Tensor, Tensor]:
    """Finite log w, p up to a factor, and the unit of each response, each [N]."""
    units = [[x for x in unit.log_w if x is not None and math.isfinite(x)] for unit in row.units]
    log_w = torch.tensor([x for unit in units for x in unit], dtype=torch.float64)
    shares = torch.tensor([1 / len(unit) for unit in units for _ in unit], dtype=torch.float64)
    return log_w, shares, torch.tensor([n for n, unit in enumerate(units) for _ in unit], dtype=torch.long)


def _eater(row: RealizedRow) -> str:
    """The unit without which the ESS would be largest, where it would be larger by a tenth."""
    log_w, shares, unit = _weights(row)
    if len(row.units) < 2 or not len(log_w):
        return ""
    without = ess_fraction_without(log_w, shares, unit).nan_to_num(0.0)
    first = int(without.argmax())
    if not without[first] > 1.1 * _fraction(row):
        return ""
    return f". Unit {row.units[first].id} eats most of it: without that one it would be {without[first]:.0%}"


def _smaller(eta: float, share: float) -> str:
    """That share of a learning rate in two digits, rounded down: rounded up, it would not be enough."""
    lr = eta * share
    digit = 10.0 ** (math.floor(math.log10(lr)) - 1) if lr > 0 else 1.0
    return f"{math.floor(lr / digit) * digit:.2g}"


def _by_replacement(rows: Iterable[RealizedRow]) -> tuple[list[RealizedRow], list[RealizedRow]]:
    """One row for the weights of each step and pairing: those that count, and those that fresh responses
    stand in for."""
    fresh = {(r.step, r.pairing) for r in rows if r.estimator == "resample"}
    raw = [r for r in rows if r.estimator == "snis"]
    weighted = [r for r in raw if (r.step, r.pairing) not in fresh]
    return weighted, [r for r in raw if (r.step, r.pairing) in fresh]


def _heaviest(rows: Iterable[RealizedRow]) -> RealizedRow | None:
    known = [r for r in rows if r.khat is not None]
    return max(known, key=lambda r: (_fraction(r) < EVEN, r.khat or 0.0), default=None)


def _khat_status(row: RealizedRow) -> Level:
    return khat_status(row.khat, row.N, _fraction(row))


def _fraction(row: RealizedRow) -> float:
    return row.ess_fraction or 0.0


def _other_way(status: str, hindrance: str) -> str:
    """Fresh responses, which are for weights that fail."""
    if status != "fail":
        return ""
    if hindrance:
        return f" Fresh responses can't stand in here: {hindrance}."
    return " With --resample, fresh responses measure this one."


def _pairing(row: RealizedRow) -> str:
    return f"{row.pairing.replace('_', '-')} {row.step}"
