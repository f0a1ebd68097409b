"""Does the measured change bear the prediction out? The answer as a sentence, with its numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.text import Text

from probe_engine.report import Number, RealizedRow, Verdict
from probe_tui.renderables.cells import paragraph
from probe_tui.renderables.numbers import ci95, number, share
from probe_tui.renderables.palette import Palette

SAID = {
    "agree": ("✓", "ok", "the measured change bears the prediction out"),
    "disagree": ("✗", "fail", "the measured change is not the predicted one"),
    "inconclusive": ("?", "warn", "the sign of the prediction is not known yet"),
    "unreliable": ("!", "fail", "the numbers below can't be trusted"),
}
"""Glyph, style and meaning of each status."""
FEWEST = 25
"""Weights that a fit of their tail needs."""


def verdict_lines(
    verdict: Verdict | None,
    realized: Sequence[RealizedRow],
    *,
    width: int,
    palette: Palette,
    unit: str = "nats",
    predicted_ci95: tuple[Number, Number] | None = None,
    empty_reason: str = "",
) -> list[Text]:
    """Status and meaning, the reason, both changes, and the row that was judged.

    Args:
        realized: where the judged row's uncertainty and weights are found.
        unit: of the entropy.
        predicted_ci95: of the estimate that was judged (held-out rows: the split estimate's).
        empty_reason: said where there is no verdict.
    """
    if verdict is None:
        return paragraph(width, empty_reason or "no verdict yet", palette.muted)
    glyph, status, meaning = SAID[verdict.status]
    row = verdict.row
    name = f"{row.step} step, {row.pairing.replace('_', '-')} pairing, {row.estimator.replace('_', '-')}"
    judged = next(
        (r for r in realized if (r.step, r.pairing, r.estimator) == (row.step, row.pairing, row.estimator)),
        None,
    )
    predicted = f"predicted δH₁ {number(verdict.predicted)} {unit}"
    if predicted_ci95 is not None:
        predicted += f", {ci95(predicted_ci95)}"
    measured = f"measured  ΔĤ  {number(verdict.measured)} {unit}"
    if judged is not None:
        measured += f" ± {number(judged.se)} SE, {ci95(judged.ci95)}"
    rows = [
        *paragraph(width, meaning, palette.accent, first=f"{glyph} {verdict.status.upper()}: ", indent="  "),
        *paragraph(width, verdict.reason),
        *paragraph(width, predicted),
        *paragraph(width, measured),
        *_difference(verdict, width, unit),
        *_before(judged, width, unit),
        *paragraph(width, f"judged: {name}", palette.muted),
    ]
    rows[0].stylize(palette.status(status), 0, len(glyph) + 1 + len(verdict.status))
    if judged is not None and judged.estimator == "resample":
        rows += paragraph(width, f"{judged.N} fresh responses, sampled after the step", palette.muted)
    elif judged is not None:
        ess = f"ESS {number(judged.ess)} of {judged.N} ({share(judged.ess_fraction)})"
        why = f" ({no_khat(judged)})" if judged.khat is None else ""
        rows += paragraph(width, f"{ess}, Pareto k̂ {number(judged.khat)}{why}", palette.muted)
    return rows


def no_khat(measured: RealizedRow) -> str:
    """Why a row has none."""
    if measured.N < FEWEST:
        return f"needs {FEWEST} weights, these are {measured.N}"
    if any(x is None or not math.isfinite(x) for unit in measured.units for x in unit.log_w):
        return "a weight is not finite"
    return "too few of the weights differ to fit their tail"


def _before(judged: RealizedRow | None, width: int, unit: str) -> list[Text]:
    """Ĥ itself: how much entropy there is for the step to change."""
    return [] if judged is None else paragraph(width, f"entropy before: {number(judged.h_before)} {unit}")


def _difference(verdict: Verdict, width: int, unit: str) -> list[Text]:
    """With its own error: the two share samples, so it is known far better than either."""
    if verdict.predicted is None or verdict.measured is None:
        return []
    difference = verdict.predicted - verdict.measured
    error = "" if not verdict.z else f" ± {number(abs(difference / verdict.z))} SE, paired over units"
    return paragraph(width, f"difference {number(difference)} {unit}{error}")
