"""GRAD021: is autograd's gradient the derivative of what the model computes?"""

from __future__ import annotations

from probe_engine.estimators.derivative import TOLERANCE, tolerance_along_step
from probe_engine.report import DerivativeTest, Finding, finding


def derivative(test: DerivativeTest | None) -> Finding:
    """The ratios of the derivative test against 1 (method.md (19b))."""
    if test is None:
        return finding("GRAD021", "skip", "X̄ is 0 or not finite: there is no direction to try")
    worst = _worst(test)
    if worst is None:
        return finding(
            "GRAD021",
            "skip",
            "measured over predicted change depends on the step's length however short it is: rounding or "
            "jumps of the forward (top-k routing) drown the derivative",
        )
    ratio, tolerance = worst
    if not departure(test):
        said = f"measured over predicted change is {_said(test)}"
        return finding("GRAD021", "ok", said, value=ratio, threshold=tolerance)
    return finding(
        "GRAD021",
        "warn",
        f"expected a tiny step to change entropy as autograd's gradient says, {departure(test)}: a "
        "stop-gradient hides a part of the forward from autograd. Training follows that gradient too; δH₁, "
        "made of it, misses the measured change by such a factor",
        value=ratio,
        threshold=tolerance,
        evidence={
            "along_x": test.along_x,
            "along_step": test.along_step,
            "along_step_se": test.along_step_se,
        },
    )


def departure(test: DerivativeTest | None) -> str:
    """Which ratios are not 1, in words; empty where none departs or none is known."""
    worst = None if test is None else _worst(test)
    if test is None or worst is None or abs(worst[0] - 1) <= worst[1]:
        return ""
    return f"measured over predicted change is {_said(test)}"


def _worst(test: DerivativeTest) -> tuple[float, float] | None:
    """The ratio that departs most from 1, with its tolerance."""
    both = ((test.along_x, TOLERANCE), (test.along_step, tolerance_along_step(test.along_step_se)))
    known = [(ratio, tolerance) for ratio, tolerance in both if ratio is not None]
    return max(known, key=lambda pair: abs(pair[0] - 1) / pair[1], default=None)


def _said(test: DerivativeTest) -> str:
    parts = [f"{test.along_x:.5g} along X̄"] if test.along_x is not None else []
    if test.along_step is not None:
        se = "" if test.along_step_se is None else f" ± {test.along_step_se:.2g}"
        parts.append(f"{test.along_step:.4g}{se} along Δθ")
    return " and ".join(parts) + f" ({test.units} groups)"
