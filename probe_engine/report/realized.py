"""The measured change of entropy, and whether to believe it."""

from __future__ import annotations

from typing import Literal

import msgspec

from probe_engine.report.findings import Number
from probe_engine.spec import XForm


class RealizedUnit(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    d: Number
    """This unit's share: ΔĤ is the mean of d over units."""
    ess: Number
    log_w: list[Number]


class RealizedRow(msgspec.Struct, frozen=True, kw_only=True):
    step: Literal["preconditioned", "adamw"]
    pairing: Literal["held_out", "same_batch"]
    scale: float
    predicted: Number
    x_estimator: XForm = "score"
    """The form of X that predicted: the headline's beside exact token entropies, else (2)."""
    delta_h: Number
    se: Number
    ci95: tuple[Number, Number] | None
    estimator: Literal["per_decision", "matched", "snis", "psis", "resample"]
    h_before: Number
    h_after: Number
    ess: Number
    ess_fraction: Number
    khat: Number
    N: int
    units: list[RealizedUnit]


class SweepPoint(msgspec.Struct, frozen=True, kw_only=True):
    """The change that a multiple of the step makes, and its departure from first order."""

    scale: float
    predicted: Number
    """scale · δH₁"""
    delta_h: Number
    se: Number
    departure: Number
    """ΔĤ − scale · δH₁ on the same samples."""
    departure_se: Number
    """Of their paired difference over units: the sampling noise of first order is in both."""
    departure_ci95: tuple[Number, Number] | None
    ess_fraction: Number


class Sweep(msgspec.Struct, frozen=True, kw_only=True):
    """ΔĤ at several multiples of the step, method.md (19)."""

    step: Literal["preconditioned", "adamw"]
    pairing: Literal["held_out", "same_batch"]
    estimator: Literal["per_decision", "matched"]
    """The one whose first order on these very samples is the prediction: `per_decision` for X of (2b)."""
    scales: list[float]
    points: list[SweepPoint]
    curvature: Number
    """C of ΔĤ ≈ k·δH₁ + k²·C: ½ d²H/dk² in the unit of H; null where too few points can be used."""
    curvature_se: Number
    linear_range: Number
    """The largest scale up to which first order holds; the largest one tried where it held throughout."""


class SelfInfluence(msgspec.Struct, frozen=True, kw_only=True):
    """How much of the same-batch change comes from each unit's own gradient."""

    step: Literal["preconditioned", "adamw"] = "preconditioned"
    estimator: Literal["resample", "per_decision", "matched"] = "matched"
    value: Number
    """ΔĤ of the same batch − ΔĤ held-out."""
    se: Number = None
    """Over units, given both steps."""
    diagonal_share: Number
    """Of the preconditioned step: (1/B²)·Σ X_n·P Y_n over X̄·PȲ; beyond 1 where the pairs of different units
    pull the other way."""


class VerdictRow(msgspec.Struct, frozen=True, kw_only=True):
    step: str
    pairing: str
    estimator: str
    x_estimator: XForm = "score"
    """The form of X that predicted."""


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    status: Literal["agree", "disagree", "inconclusive", "unreliable"]
    row: VerdictRow
    predicted: Number
    measured: Number
    z: Number
    """(δH₁ − ΔĤ) over the SE of their paired difference."""
    reason: str
