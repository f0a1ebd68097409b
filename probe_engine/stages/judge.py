"""Judge: does the measured change bear the prediction out?"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from probe_engine.checks.derivative import departure
from probe_engine.estimators.verdict import verdict
from probe_engine.events import Part
from probe_engine.report import (
    AdamwEstimate,
    DerivativeTest,
    Estimates,
    RealizedRow,
    SplitEstimate,
    Verdict,
    VerdictRow,
)
from probe_engine.stages import Stage
from probe_engine.stages.measured import Measured
from probe_engine.stages.realized_rows import JUDGED, Realized


def judge(
    eta: float,
    measured: Measured,
    estimates: Estimates,
    realized: Realized,
    derivative: DerivativeTest | None,
) -> Stage[Verdict | None]:
    """The verdict on the headline row, against the prediction of its own step.

    None where one unit left nothing to hold out (ROLL014 has said so).
    """
    row = headline(realized)
    if row is None:
        return None
    predicted, by_unit = _prediction(row, eta, measured, estimates)
    if predicted is None:
        return None
    paired = torch.tensor([by_unit[u.id] - _value(u.d) for u in row.units], dtype=torch.float64)
    low, high = predicted.ci95 or (None, None)
    result = verdict(
        row=VerdictRow(
            step=row.step,
            pairing=row.pairing,
            estimator=row.estimator,
            x_estimator=estimates.x_estimator,
        ),
        predicted=_value(predicted.delta_h1),
        ci95=None if low is None or high is None else (low, high),
        prompts_needed=predicted.prompts_needed,
        measured=_value(row.delta_h),
        paired=paired,
        ess_fraction=_value(row.ess_fraction),
        khat=row.khat,
        n=row.N,
        # The optimizer's own step has a fresh v̂.
        stale_ratio=measured.stale_ratio if row.step == "preconditioned" else None,
        units="blocks" if any(len(o.unit.groups) > 1 for o in measured.objectives) else "prompts",
        no_derivative=departure(derivative),
        parts=predicted.parts if isinstance(predicted, AdamwEstimate) else None,
    )
    yield Part(verdict=result)
    return result


def headline(realized: Realized) -> RealizedRow | None:
    """Held-out; the optimizer's own step where it is there, and the best measurement of it: fresh responses
    where weights degenerated and they were sampled, else per decision, else matched."""
    rows = (
        realized.row(step, "held_out", estimator)
        for step in ("adamw", "preconditioned")
        for estimator in JUDGED
    )
    return next((row for row in rows if row is not None), None)


def _prediction(
    row: RealizedRow, eta: float, measured: Measured, estimates: Estimates
) -> tuple[AdamwEstimate | SplitEstimate | None, Mapping[str, float]]:
    """Of the same step, and each evaluating unit's own share of it."""
    form = estimates.x_estimator
    projected, predicted = measured.by_form[form], estimates.headline
    if row.step == "adamw":
        return predicted.adamw, {} if projected.own is None else projected.own.x
    split = predicted.split
    if split is None:
        return None, {}
    return split, {u.id: eta * u.x_dot_sum_py["U"] / split.B_U for u in projected.scalars if u.role == "E"}


def _value(number: float | None) -> float:
    return float("nan") if number is None else number
