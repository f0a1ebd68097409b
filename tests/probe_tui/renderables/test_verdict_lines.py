"""The verdict in words."""

from __future__ import annotations

from typing import Any

import pytest

from probe_engine.report import RealizedRow, Verdict, VerdictRow
from probe_tui.renderables.palette import DEFAULT
from probe_tui.renderables.verdict import verdict_lines


def realized(**changes: Any) -> RealizedRow:
    values: dict[str, Any] = {
        "step": "preconditioned",
        "pairing": "held_out",
        "scale": 1.0,
        "predicted": -0.001,
        "delta_h": -0.0011,
        "se": 0.0002,
        "ci95": (-0.0015, -0.0007),
        "estimator": "matched",
        "h_before": 0.2,
        "h_after": 0.19,
        "ess": 240.0,
        "ess_fraction": 0.9375,
        "khat": 0.43,
        "N": 256,
        "units": [],
    }
    return RealizedRow(**(values | changes))


def test_fresh_responses_have_no_weights_to_speak_of() -> None:
    row = VerdictRow(step="preconditioned", pairing="held_out", estimator="resample")
    shown = verdict_lines(
        said(row=row), [realized(estimator="resample", khat=None)], width=90, palette=DEFAULT
    )
    assert shown[-1].plain == "256 fresh responses, sampled after the step"
    assert not any("k̂" in line.plain for line in shown)


def said(status: Any = "agree", **changes: Any) -> Verdict:
    values: dict[str, Any] = {
        "status": status,
        "row": VerdictRow(step="preconditioned", pairing="held_out", estimator="matched"),
        "predicted": -0.001,
        "measured": -0.0011,
        "z": 0.4,
        "reason": "Entropy falls: predicted -0.001, measured -0.0011.",
    }
    return Verdict(**(values | changes))


def lines(verdict: Verdict | None, rows: list[RealizedRow], width: int = 120, **options: Any) -> list[str]:
    return [r.plain for r in verdict_lines(verdict, rows, width=width, palette=DEFAULT, **options)]


def test_sentence_reason_numbers_and_the_row_that_was_judged() -> None:
    rows = [realized(estimator="snis", se=9.0), realized()]
    assert lines(said(), rows, unit="nats/slot", predicted_ci95=(-0.002, None)) == [
        "✓ AGREE: the measured change bears the prediction out",
        "Entropy falls: predicted -0.001, measured -0.0011.",
        "predicted δH₁ -0.001 nats/slot, 95% [-0.002, —]",
        "measured  ΔĤ  -0.0011 nats/slot ± 0.0002 SE, 95% [-0.0015, -0.0007]",
        "difference 0.0001 nats/slot ± 0.00025 SE, paired over units",
        "entropy before: 0.2 nats/slot",
        "judged: preconditioned step, held-out pairing, matched",
        "ESS 240 of 256 (93.8%), Pareto k̂ 0.43",
    ]


def test_without_its_row_it_says_what_it_holds() -> None:
    assert lines(said(z=None), [realized(pairing="same_batch")])[2:] == [
        "predicted δH₁ -0.001 nats",
        "measured  ΔĤ  -0.0011 nats",
        "difference 0.0001 nats",
        "judged: preconditioned step, held-out pairing, matched",
    ]


@pytest.mark.parametrize(
    ("status", "start", "style"),
    [
        ("agree", "✓ AGREE: ", DEFAULT.ok),
        ("disagree", "✗ DISAGREE: ", DEFAULT.fail),
        ("inconclusive", "? INCONCLUSIVE: ", DEFAULT.warn),
        ("unreliable", "! UNRELIABLE: ", DEFAULT.fail),
    ],
)
def test_each_status_has_glyph_word_and_style(status: str, start: str, style: str) -> None:
    first = verdict_lines(said(status), [], width=80, palette=DEFAULT)[0]
    assert first.plain.startswith(start)
    assert style in {str(s.style) for s in first.spans if s.start == 0}


def test_no_verdict_says_why() -> None:
    assert lines(None, []) == ["no verdict yet"]
    assert lines(None, [], empty_reason="one unit leaves nothing to hold out") == [
        "one unit leaves nothing to hold out"
    ]
