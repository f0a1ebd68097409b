"""OPT010 and STAT007: is the preconditioner that of the next step?"""

from __future__ import annotations

import math

from probe_engine.estimators.verdict import STALE_FAIL as FAIL
from probe_engine.model.preconditioner import Preconditioner
from probe_engine.report import Finding, Status, finding
from probe_engine.vectors import ParameterVector

WARN = 4.0
DISPLACED = 0.1
"""Share of the step that may lie on other coordinates than under Adam."""


def stale(ratio: float) -> Finding:
    """‖PȲ‖/‖P⁺Ȳ‖ against its lines (method.md (4b))."""
    if math.isnan(ratio):
        return finding("OPT010", "skip", "no parameter has a usable v̂ and a gradient: nothing to compare")
    threshold = FAIL if ratio > FAIL else WARN
    status: Status = "fail" if ratio > FAIL else "warn" if ratio > WARN else "ok"
    line = f"‖PȲ‖/‖P⁺Ȳ‖ = {ratio:.3g}"
    if status == "ok":
        return finding("OPT010", status, line, value=ratio, threshold=threshold)
    return finding(
        "OPT010",
        status,
        f"{line}, expected at most {threshold:g}: v̂ is far below the fresh gradient² on some coordinates, "
        f"and the frozen P takes a step {ratio:.3g} times as long as the refreshed one, in another direction",
        value=ratio,
        threshold=threshold,
    )


def fallback_scale(p: Preconditioner, py: ParameterVector) -> Finding:
    """STAT007: do the fallbacks' coordinates make up about as much of the step as under Adam?

    Adam moves every coordinate by about one learning rate, so a share of the coordinates is about that share
    of ‖Δθ‖²; P = 1 beside 1/√v̂ makes it nothing, or everything.

    Args:
        py: P Ȳ, or a multiple.
    """
    if not p.fallbacks:
        return finding("STAT007", "ok", "no fallback")
    if len(p.fallbacks) == len(p.ids):
        return finding(
            "STAT007", "skip", "all parameters fall back to P = 1: no other scale stands beside it"
        )
    moved, length = [0, 0], [0.0, 0.0]
    for diagonal, tensor in zip(p.diagonal, py.tensors, strict=True):
        if tensor is not None:
            fallback = diagonal is None
            moved[fallback] += int(tensor.count_nonzero())
            length[fallback] += float(tensor.double().square().sum())
    if not sum(moved) or not 0 < sum(length) < math.inf:
        return finding("STAT007", "skip", "P·Ȳ is 0 or not finite")
    coordinates, step = moved[1] / sum(moved), length[1] / sum(length)
    line = (
        f"{len(p.fallbacks)} of {len(p.ids)} parameters fall back to P = 1: {coordinates:.1%} of the "
        f"coordinates, {step:.2g} of ‖PȲ‖²"
    )
    if abs(step - coordinates) <= DISPLACED:
        return finding("STAT007", "info", line, value=step, threshold=coordinates, remedy="", commands=())
    return finding(
        "STAT007",
        "warn",
        f"{line}; expected about as much of the step as of the coordinates, for Adam moves each by about "
        f"one learning rate: {'they set the step' if step > coordinates else 'they stand still in it'}, and "
        "δH₁ is about another step than the optimizer's next",
        value=step,
        threshold=coordinates,
        evidence={"parameters": list(p.fallbacks[:8])},
    )
