"""Each rule of the verdict, on either side of its border."""

from __future__ import annotations

import math

import pytest
import torch

from probe_engine.estimators.intervals import t_quantile
from probe_engine.estimators.verdict import driver, verdict
from probe_engine.report import AdamwParts, Verdict, VerdictRow

ROW = VerdictRow(step="preconditioned", pairing="held_out", estimator="matched")
PAIRED = torch.tensor([0.01, -0.02, 0.03, 0.0], dtype=torch.float64)
SE = math.sqrt(float(PAIRED.var()) / 4)


def judge(**changed: object) -> Verdict:
    healthy: dict[str, object] = {
        "row": ROW,
        "predicted": -1.0,
        "ci95": (-1.5, -0.5),
        "prompts_needed": 12,
        "measured": -0.95,
        "paired": PAIRED,
        "ess_fraction": 0.9,
        "khat": 0.2,
        "n": 64,
        "stale_ratio": 1.0,
    }
    return verdict(**(healthy | changed))


def test_healthy_numbers_agree():
    result = judge()
    assert result.status == "agree"
    assert result.row == ROW
    assert (result.predicted, result.measured) == (-1.0, -0.95)
    assert result.z == pytest.approx(-0.05 / SE)
    for part in ("Entropy falls", "-1", "-0.95", "0.05", "10% of the prediction allows 0.1"):
        assert part in result.reason


def test_the_rao_blackwell_form_is_named_where_it_predicts():
    row = VerdictRow(step="adamw", pairing="held_out", estimator="per_decision", x_estimator="rao_blackwell")
    for changed in ({}, {"measured": 3.0}, {"ci95": (-2.0, 1.0)}):
        assert "-1 by the Rao-Blackwell gradient" in judge(row=row, **changed).reason
        assert "Rao-Blackwell" not in judge(**changed).reason


@pytest.mark.parametrize(
    ("changed", "status", "said"),
    [
        ({"ess_fraction": 0.2999}, "unreliable", "19.2 of 64, below 30%"),
        ({"ess_fraction": 0.3}, "agree", ""),
        ({"khat": 1.0, "ess_fraction": 0.89}, "unreliable", "k̂ of its 64 importance weights is 1.00"),
        ({"khat": 1.0}, "agree", ""),
        ({"khat": 0.999, "ess_fraction": 0.89}, "agree", ""),
        ({"khat": None}, "agree", ""),
        ({"stale_ratio": 10.01}, "unreliable", "10 times"),
        ({"stale_ratio": 10.0}, "agree", ""),
        ({"stale_ratio": None}, "agree", ""),
        ({"no_derivative": "the ratio is 1.12 along Δθ"}, "unreliable", "the ratio is 1.12 along Δθ"),
        ({"ci95": (-2.0, 0.0)}, "inconclusive", "-2 … 0 covers 0; 12 prompts would do"),
        ({"ci95": (-2.0, -1e-9)}, "agree", ""),
        ({"predicted": 1.0, "measured": 1.0, "ci95": (0.0, 2.0)}, "inconclusive", "entropy rises"),
        ({"predicted": 1.0, "measured": 1.0, "ci95": (1e-9, 2.0)}, "agree", "Entropy rises"),
        ({"ci95": None}, "inconclusive", "too few prompts for an interval"),
        ({"ci95": (-2.0, 1.0), "prompts_needed": None}, "inconclusive", "-2 … 1 covers 0."),
        ({"predicted": 0.0, "ci95": (0.0, 0.0)}, "inconclusive", "exactly 0"),
        ({"predicted": -10.0, "ci95": (-15.0, -5.0), "measured": -9.0}, "agree", "allows 1."),
        ({"measured": -0.9001}, "agree", "and 10% of the prediction allows 0.1"),
        ({"measured": -0.8999}, "disagree", "while 10% of the prediction allows 0.1"),
        ({"khat": 1.0, "ess_fraction": 0.9}, "agree", ""),
        ({"measured": 0.89}, "disagree", "differ by 1.89"),
    ],
)
def test_borders(changed, status, said):
    result = judge(**changed)
    assert result.status == status
    assert said in result.reason
    assert result.reason.endswith(".")


@pytest.mark.parametrize(("share", "status"), [(0.999, "agree"), (1.001, "disagree")])
def test_noise_beyond_a_tenth_widens_the_tolerance(share, status):
    paired = 10 * PAIRED
    half_width = t_quantile(3) * 10 * SE
    assert half_width > 0.1
    result = judge(paired=paired, measured=-1.0 + share * half_width)
    assert result.status == status
    assert "95% half-width of their paired difference" in result.reason


@pytest.mark.parametrize("name", ["predicted", "measured", "ess_fraction"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_numbers_that_are_none_are_unreliable(name, value):
    result = judge(**{name: value})
    assert result.status == "unreliable"
    assert "not all of their numbers are finite" in result.reason


def test_a_paired_difference_that_is_nan_is_unreliable():
    assert judge(paired=torch.tensor([0.0, math.nan])).status == "unreliable"


def test_distrust_comes_before_doubt():
    assert judge(ess_fraction=0.1, ci95=(-1.0, 1.0)).status == "unreliable"


def test_one_unit_is_judged_by_the_tenth_alone():
    result = judge(paired=torch.tensor([0.5]))
    assert result.status == "agree"
    assert result.z is None


def parts(gradient: float, clipping: float, momentum: float, weight_decay: float) -> AdamwParts:
    return AdamwParts(gradient=gradient, clipping=clipping, momentum=momentum, weight_decay=weight_decay)


@pytest.mark.parametrize(
    ("of", "said"),
    [
        (
            parts(-0.1, 0.0, -0.9, 0.01),
            " What moves it most is the momentum of earlier steps (-0.9), then this batch's gradient (-0.1) "
            "and weight decay (0.01).",
        ),
        (
            # Clipping takes back what the gradient would do: the two belong together.
            parts(-5.0, 4.0, 0.9, 0.0),
            " What moves it most is this batch's gradient as clipped (-1), then the momentum of earlier "
            "steps (0.9).",
        ),
        (parts(0.0, 0.0, 0.0, 0.0), ""),
        (parts(math.nan, 0.0, 1.0, 0.0), ""),
        (None, ""),
    ],
)
def test_what_drives_entropy_is_said(of, said):
    assert driver(of) == said
    assert judge(parts=of).reason == judge().reason + said


def test_what_drives_a_number_that_can_not_be_trusted_is_not_said():
    assert "most is" not in judge(parts=parts(-0.1, 0.0, -0.9, 0.0), ess_fraction=0.1).reason
