"""Judge: does the measured change bear the prediction out?"""

from __future__ import annotations

import torch

from probe_engine.checks.derivative import departure
from probe_engine.estimators.verdict import verdict
from probe_engine.events import Part
from probe_engine.report import DerivativeTest, Estimates, Verdict, VerdictRow
from probe_engine.stages import Stage
from probe_engine.stages.measure import Measured
from probe_engine.stages.realize import Realized


def judge(
    eta: float,
    measured: Measured,
    estimates: Estimates,
    realized: Realized,
    derivative: DerivativeTest | None,
) -> Stage[Verdict | None]:
    """The verdict on the headline row there is: preconditioned step, held-out, matched.

    None where one unit left nothing to hold out (ROLL014 has said so).
    """
    row, split = realized.row("held_out", "matched"), estimates.split
    if row is None or split is None:
        return None
    # The prediction's own share of each evaluating unit is η·s_n.
    predicted = {u.id: eta * u.x_dot_sum_py["U"] / split.B_U for u in measured.scalars if u.role == "E"}
    paired = torch.tensor([predicted[u.id] - _value(u.d) for u in row.units], dtype=torch.float64)
    low, high = split.ci95 or (None, None)
    result = verdict(
        row=VerdictRow(step=row.step, pairing=row.pairing, estimator=row.estimator),
        predicted=_value(split.delta_h1),
        ci95=None if low is None or high is None else (low, high),
        prompts_needed=split.prompts_needed,
        measured=_value(row.delta_h),
        paired=paired,
        ess_fraction=_value(row.ess_fraction),
        khat=row.khat,
        n=row.N,
        stale_ratio=measured.stale_ratio,
        units="blocks" if any(len(o.unit.groups) > 1 for o in measured.objectives) else "prompts",
        no_derivative=departure(derivative),
    )
    yield Part(verdict=result)
    return result


def _value(number: float | None) -> float:
    return float("nan") if number is None else number
