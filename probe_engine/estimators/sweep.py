"""How far first order holds: the change that multiples of the step make, method.md (19).

k      scale, a multiple of the step
f_n    first-order share of unit n: ΔĤ(k) ≈ k·mean f, mean f = δH₁       [B]
D(k)   departure ΔĤ(k) − k·δH₁

ΔĤ is that estimator whose first-order term is δH₁ sample by sample: matched (15) with X of (2), per decision
(16) with X of (2b). So D holds curvature and next to no sampling noise.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from probe_engine.estimators.change import Change
from probe_engine.estimators.intervals import t_interval, t_quantile
from probe_engine.estimators.verdict import TOLERANCE
from probe_engine.estimators.weights import ess_status
from probe_engine.report import Sweep, SweepPoint
from probe_engine.spec import StepKind, XForm

SCALES = (0.25, 0.5, 1.0, 2.0)


@dataclass(frozen=True, eq=False)
class Reach:
    """The change at one multiple of the step, beside its first-order share."""

    scale: float
    change: Change
    first_order: Tensor
    """f, [B], with η."""

    @property
    def departures(self) -> Tensor:
        """D_n(k), [B]; their mean is D(k)."""
        return self.change.d_units - self.scale * self.first_order

    @property
    def usable(self) -> bool:
        """Whether the weights have not degenerated, method.md (18)."""
        return ess_status(self.change.ess_fraction) != "fail" and bool(self.departures.isfinite().all())

    @property
    def strain(self) -> float:
        """|D(k)| over the most that still counts as first order; above 1 it does not hold.

        The most is the largest of k·SE of δH₁ over these units, a tenth of k·|δH₁| (which the verdict lets
        pass too), and the 95% half-width of D(k) itself.
        """
        departure = abs(float(self.departures.mean()))
        allowed = max(
            self.scale * (standard_error(self.first_order) or 0.0),
            self.scale * TOLERANCE * abs(float(self.first_order.mean())),
            (standard_error(self.departures) or 0.0) * t_quantile(max(len(self.departures) - 1, 1)),
        )
        return departure / allowed if allowed > 0 else (math.inf if departure > 0 else 0.0)


def sweep_of(step: StepKind, form: XForm, reaches: Sequence[Reach]) -> Sweep:
    """The report's sweep of a held-out step.

    Args:
        step: which one.
        form: of X, in the first-order shares.
        reaches: by ascending scale, of the estimator that goes with it.
    """
    usable = [r for r in reaches if r.usable]
    curved = curvature(usable)
    return Sweep(
        step=step,
        pairing="held_out",
        estimator="per_decision" if form == "rao_blackwell" else "matched",
        scales=[r.scale for r in reaches],
        points=[_point(r) for r in reaches],
        curvature=None if curved is None else float(curved.mean()),
        curvature_se=None if curved is None else standard_error(curved),
        linear_range=linear_range(usable),
    )


def curvature(reaches: Sequence[Reach]) -> Tensor | None:
    """C_n of D_n(k) = C_n·k² + T_n·k³ by least squares, [B]: the mean is ½ d²H/dk² at k = 0.

    None from fewer than two scales.
    """
    if len(reaches) < 2:
        return None
    # The normal equations of two unknowns, by hand: LAPACK rounds as memory happens to be aligned, and the
    # same seed would not give the same bytes.
    k4, k5, k6 = (math.fsum(r.scale**power for r in reaches) for power in (4, 5, 6))
    d2, d3 = (torch.stack([r.scale**power * r.departures for r in reaches]).sum(0) for power in (2, 3))
    return (k6 * d2 - k5 * d3) / (k4 * k6 - k5 * k5)


def linear_range(reaches: Sequence[Reach]) -> float | None:
    """The scale at which `strain` reaches 1, linear in between (as it is where D is quadratic).

    The largest scale where it stays below; None without any.
    """
    scale, strain = 0.0, 0.0
    for reach in reaches:
        if reach.strain > 1:
            if math.isinf(reach.strain):
                return scale
            return scale + (1 - strain) / (reach.strain - strain) * (reach.scale - scale)
        scale, strain = reach.scale, reach.strain
    return scale if reaches else None


def standard_error(values: Tensor) -> float | None:
    """Of the mean over units; None from one."""
    return float(values.std()) / math.sqrt(len(values)) if len(values) > 1 else None


def _point(reach: Reach) -> SweepPoint:
    departure, error = float(reach.departures.mean()), standard_error(reach.departures)
    return SweepPoint(
        scale=reach.scale,
        predicted=reach.scale * float(reach.first_order.mean()),
        delta_h=reach.change.delta_h,
        se=reach.change.se,
        departure=departure,
        departure_se=error,
        departure_ci95=t_interval(departure, error, len(reach.departures) - 1),
        ess_fraction=reach.change.ess_fraction,
    )
