"""OPT010: is the preconditioner still that of the next step?"""

from __future__ import annotations

import math

from probe_engine.estimators.verdict import STALE_FAIL as FAIL
from probe_engine.report import Finding, Status, finding

WARN = 4.0


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
