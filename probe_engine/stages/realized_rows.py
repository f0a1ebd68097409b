"""Measured changes as rows of the report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import msgspec

from probe_engine.estimators.change import Change
from probe_engine.estimators.intervals import t_interval
from probe_engine.estimators.rescored import Samples, unit_ess
from probe_engine.report import RealizedRow, RealizedUnit
from probe_engine.spec import StepKind, XForm
from probe_engine.stages.samples import Evaluated
from probe_engine.stages.trips import Pairing, Trip

Judged = Literal["resample", "per_decision", "matched"]
JUDGED: tuple[Judged, ...] = get_args(Judged)
"""What a verdict may rest on, the best first."""
Estimator = Literal[Judged, "snis", "psis"]
Changes = Mapping[Estimator, Change]
"""After one trip, the best first."""


@dataclass(frozen=True)
class Realized:
    """The rows of the report."""

    rows: tuple[RealizedRow, ...]

    def row(self, step: StepKind, pairing: Pairing, estimator: Estimator) -> RealizedRow | None:
        """The row of that name."""
        for row in self.rows:
            if (row.step, row.pairing, row.estimator) == (step, pairing, estimator):
                return row
        return None


def realized_row(
    trip: Trip,
    estimator: Estimator,
    change: Change,
    evaluated: Evaluated,
    samples: Samples,
    headline: XForm,
) -> RealizedRow:
    """The row of one estimator.

    Args:
        samples: the units' responses with the weights that the trip gave them.
        headline: the form of X that predicts beside exact token entropies; the others stand beside (2), whose
            noise they share.
    """
    form: XForm = headline if estimator in ("resample", "per_decision") else "score"
    units = [
        RealizedUnit(id=unit.unit.id, d=d, ess=ess, log_w=samples.log_w[samples.unit == index].tolist())
        for index, (unit, d, ess) in enumerate(
            zip(evaluated.units, change.d_units.tolist(), unit_ess(samples).tolist(), strict=True)
        )
    ]
    if estimator == "resample":  # fresh responses bear no weights
        units = [msgspec.structs.replace(unit, ess=float(len(unit.log_w)), log_w=[]) for unit in units]
    return RealizedRow(
        step=trip.step,
        pairing=trip.pairing,
        scale=1.0,
        predicted=trip.predicted.get(form),
        x_estimator=form,
        delta_h=change.delta_h,
        se=change.se,
        ci95=t_interval(change.delta_h, change.se, len(units) - 1),
        estimator=estimator,
        h_before=change.h_before,
        h_after=change.h_after,
        ess=change.ess,
        ess_fraction=change.ess_fraction,
        khat=change.khat,
        N=change.n,
        units=units,
    )
