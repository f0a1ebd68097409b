"""Does the measured change bear the prediction out?"""

from __future__ import annotations

import math
from typing import Literal

from torch import Tensor

from probe_engine.estimators.intervals import t_quantile
from probe_engine.estimators.weights import KHAT_FAIL, ess_status, khat_status
from probe_engine.report import AdamwParts, Number, Verdict, VerdictRow

STALE_FAIL = 10.0
"""‖PȲ‖/‖P⁺Ȳ‖ above this fails OPT010, method.md (4b)."""
TOLERANCE = 0.1
"""Prediction and measurement that differ by this share of the prediction agree, however precise they are."""


def verdict(
    *,
    row: VerdictRow,
    predicted: float,
    ci95: tuple[Number, Number] | None,
    prompts_needed: int | None,
    measured: float,
    paired: Tensor,
    ess_fraction: float,
    khat: float | None,
    n: int,
    stale_ratio: float | None,
    units: str = "prompts",
    no_derivative: str = "",
    parts: AdamwParts | None = None,
) -> Verdict:
    """The first rule of method.md §6 that holds: unreliable, inconclusive, agree, else disagree.

    Args:
        row: which realized row is judged.
        predicted: δH₁, with η.
        ci95: its interval; None where there are too few units for one.
        prompts_needed: how many would make it exclude 0; None where unknown.
        measured: ΔĤ.
        paired: [B], each unit's prediction minus its measurement; their spread gives the difference's SE.
        ess_fraction: ESS/N of the measurement.
        khat: Pareto k̂ of its weights, where known.
        n: N, its number of responses.
        stale_ratio: ‖PȲ‖/‖P⁺Ȳ‖, where known.
        units: what the units are called.
        no_derivative: why autograd's gradient is not the derivative of the forward (GRAD021), if not.
        parts: of the prediction, where it is the optimizer's own step's.

    Returns:
        Status and the reason in one sentence; one more says which part of the optimizer's own step it is
        that moves entropy. `z` is δH₁ − ΔĤ over the SE of the paired difference.
    """
    B = len(paired)
    by = " by the Rao-Blackwell gradient" if row.x_estimator == "rao_blackwell" else ""
    se = math.sqrt(float(paired.double().var()) / B) if B > 1 else None

    status: Literal["agree", "disagree", "inconclusive", "unreliable"]
    if reason := _distrust(predicted, measured, se, ess_fraction, khat, n, stale_ratio, no_derivative):
        status = "unreliable"
    elif reason := _doubt(predicted, by, ci95, prompts_needed, measured, units):
        status = "inconclusive"
    else:
        noise = t_quantile(B - 1) * se if se is not None else 0.0
        agrees, reason = _comparison(predicted, by, measured, noise)
        status = "agree" if agrees else "disagree"
    return Verdict(
        status=status,
        row=row,
        predicted=predicted,
        measured=measured,
        z=(predicted - measured) / se if se else None,
        reason=reason if status == "unreliable" else f"{reason}{driver(parts)}",
    )


def driver(parts: AdamwParts | None) -> str:
    """Which part of the optimizer's step moves entropy most, in a sentence that follows another."""
    if parts is None:
        return ""
    gradient, clipping = parts.gradient or 0.0, parts.clipping or 0.0
    shares = {
        f"this batch's gradient{' as clipped' if clipping else ''}": gradient + clipping,
        "the momentum of earlier steps": parts.momentum or 0.0,
        "weight decay": parts.weight_decay or 0.0,
    }
    first, *others = sorted(shares, key=lambda name: -abs(shares[name]))
    if not math.isfinite(sum(shares.values())) or shares[first] == 0:
        return ""
    then = " and ".join(f"{name} ({shares[name]:.3g})" for name in others if shares[name])
    return f" What moves it most is {first} ({shares[first]:.3g}){', then ' if then else ''}{then}."


def _distrust(
    predicted: float,
    measured: float,
    se: float | None,
    ess_fraction: float,
    khat: float | None,
    n: int,
    stale_ratio: float | None,
    no_derivative: str,
) -> str | None:
    """Why the numbers can't be trusted, None where they can."""
    if not all(math.isfinite(x) for x in (predicted, measured, se or 0.0, ess_fraction)):
        return (
            f"Prediction ({predicted:.3g}) and measured change ({measured:.3g}) can't be compared: "
            "not all of their numbers are finite."
        )
    if ess_status(ess_fraction) == "fail":
        return (
            f"The measured change ({measured:.3g}) rests on too few responses: the effective sample size is "
            f"{ess_fraction * n:.1f} of {n}, below 30%."
        )
    if khat is not None and khat_status(khat, n, ess_fraction) == "fail":
        return (
            f"The measured change ({measured:.3g}) can't be trusted: Pareto k̂ of its {n} importance weights "
            f"is {khat:.2f}, and from {KHAT_FAIL:.0f} on they have no mean."
        )
    if stale_ratio is not None and stale_ratio > STALE_FAIL:
        return (
            f"The preconditioner is stale: its step is {stale_ratio:.3g} times as long as with fresh second "
            f"moments, more than {STALE_FAIL:.0f}, so the prediction ({predicted:.3g}) is not about the "
            "optimizer's next step."
        )
    if no_derivative:
        return (
            f"The prediction ({predicted:.3g}) is made of a gradient that is not the derivative of what the "
            f"model computes: {no_derivative}. The measured change ({measured:.3g}) does not depend on it."
        )
    return None


def _doubt(
    predicted: float,
    by: str,
    ci95: tuple[Number, Number] | None,
    prompts_needed: int | None,
    measured: float,
    units: str,
) -> str | None:
    """Why the prediction's sign is not known, None where it is."""
    if predicted == 0:
        return (
            "The predicted change is exactly 0 (the learning rate or every policy gradient is 0), so there "
            f"is nothing for the measured change ({measured:.3g}) to confirm."
        )
    unknown = f"Whether entropy {_moves(predicted)}, as predicted ({predicted:.3g}{by}), is not known: "
    if ci95 is None or ci95[0] is None or ci95[1] is None:
        return f"{unknown}there are too few {units} for an interval."
    if ci95[0] <= 0 <= ci95[1]:
        enough = f"; {prompts_needed} {units} would do at this effect size" if prompts_needed else ""
        return f"{unknown}the 95% interval {ci95[0]:.3g} … {ci95[1]:.3g} covers 0{enough}."
    return None


def _comparison(predicted: float, by: str, measured: float, noise: float) -> tuple[bool, str]:
    """Do they agree within `noise` (t·SE of the paired difference) or TOLERANCE? And the sentence."""
    difference, share = abs(predicted - measured), TOLERANCE * abs(predicted)
    tolerance = max(noise, share)
    agrees = difference <= tolerance
    source = "the 95% half-width of their paired difference" if noise >= share else "10% of the prediction"
    advice = "" if agrees else " If they meet at a smaller --lr, first order does not hold at this one."
    return agrees, (
        f"Entropy {_moves(predicted)}: predicted {predicted:.3g}{by}, measured {measured:.3g}; they differ "
        f"by {difference:.3g}, {'and' if agrees else 'while'} {source} allows {tolerance:.3g}.{advice}"
    )


def _moves(change: float) -> str:
    return "falls" if change < 0 else "rises"
