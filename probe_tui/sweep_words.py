"""The step sweep and self-influence in words, the same on every face."""

from __future__ import annotations

from probe_engine.report import SelfInfluence, Sweep, SweepPoint
from probe_tui.renderables.numbers import number, share

FRACTIONS = {0.25: "¼", 0.5: "½"}


def scale_words(scale: float) -> str:
    """¼ × step."""
    return f"{FRACTIONS.get(scale, number(scale))} × step"


def sweep_title(swept: Sweep, unit: str) -> str:
    """Of which step, how it was measured, and the scaling: first order is the same number at every k."""
    pairing = swept.pairing.replace("_", "-")
    estimator = swept.estimator.replace("_", "-")
    return f"step sweep, {swept.step} step, {pairing} {estimator}: ΔĤ/k at k × step, {unit}"


def per_step_of(value: float | None, point: SweepPoint) -> float | None:
    """A change at k times the step, divided by k."""
    return None if value is None else value / point.scale


def range_words(swept: Sweep) -> str:
    """How far first order holds, in words."""
    reach = swept.linear_range
    if reach is None:
        return "the weights are too uneven to say how far first order holds"
    if swept.scales and reach >= max(swept.scales):
        return f"first order holds up to {number(reach)} × this step, the longest tried"
    if reach in swept.scales:
        return f"first order holds up to {number(reach)} × this step; beyond, weights are too uneven"
    return f"the linear range ends at {number(reach, 2)} of this step"


def self_influence_words(own: SelfInfluence, unit: str) -> str:
    """What the same-batch change has from each unit's own gradient."""
    error = "" if own.se is None else f" ± {number(own.se)}"
    said = f"same-batch less held-out ΔĤ is {number(own.value)}{error} {unit}"
    diagonal = f"the diagonal is {share(own.diagonal_share)} of η·X̄·PȲ"
    return f"self-influence of the {own.step} step: {said}; {diagonal}"
