"""STAT: which form of the entropy gradient predicts?"""

from __future__ import annotations

from probe_engine.report import Estimates, Finding, finding
from probe_engine.spec import XEstimator

NAMES = {"score": "the score form", "rao_blackwell": "the Rao-Blackwell form"}


def x_form(estimates: Estimates, asked: XEstimator) -> Finding:
    """STAT009: is the quieter form there, and how much quieter is it?

    Args:
        estimates: by either form.
        asked: `--x-estimator`.
    """
    if asked == "score":
        return finding("STAT009", "skip", "waits for --x-estimator both: the score form alone was asked for")
    if estimates.rao_blackwell is None:
        return finding(
            "STAT009",
            "info",
            "expected one length weight λ for all responses, --weighting per_token has one for each length: "
            "the Rao-Blackwell form does not exist, and δH₁ is by the score form, whose error is larger",
        )
    headline = NAMES[estimates.x_estimator]
    score, rao_blackwell = estimates.by("score").se, estimates.rao_blackwell.se
    if score is None or rao_blackwell is None:
        return finding("STAT009", "ok", f"δH₁ is by {headline}; there are too few units for errors")
    ratio = rao_blackwell / score if score > 0 else None
    times = "" if ratio is None else f", {ratio:.2g} of it"
    return finding(
        "STAT009",
        "ok",
        f"SE of δH₁ = {score:.3g} by the score form, {rao_blackwell:.3g} by the Rao-Blackwell form{times}: "
        f"the headline is by {headline}",
        value=ratio,
        threshold=1,
    )
