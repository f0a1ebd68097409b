"""The effective sample size of a smaller step, against the engine's own."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import msgspec
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from probe_engine.estimators.weights import ess
from probe_engine.report import RealizedRow, RealizedUnit, Sweep, SweepPoint
from probe_tui.renderables.whatif import change_at_scale, ess_at_scale, row_ess_at_scale

LOG_W = st.lists(st.floats(-50, 50), min_size=1, max_size=30)


@given(LOG_W, st.floats(0, 2))
def test_it_is_the_engines_ess_of_scaled_log_weights(log_w: list[float], scale: float) -> None:
    weights = torch.tensor(log_w, dtype=torch.float64) * scale
    expected = ess(weights, torch.ones(len(log_w))) / len(log_w)
    assert ess_at_scale(log_w, scale) == pytest.approx(expected, rel=1e-9)


@given(LOG_W)
def test_no_step_loses_nothing_and_smaller_steps_lose_less(log_w: list[float]) -> None:
    assert ess_at_scale(log_w, 0.0) == pytest.approx(1.0)
    sizes = [ess_at_scale(log_w, scale) for scale in (0.0, 0.25, 0.5, 1.0)]
    assert all(a >= b - 1e-12 for a, b in pairwise(sizes))


@pytest.mark.parametrize("log_w", [[], [math.nan, 0.0], [math.inf, 0.0], [-math.inf]])
def test_what_can_not_be_weighed_is_not_a_number(log_w: list[float]) -> None:
    assert math.isnan(ess_at_scale(log_w, 1.0))


def test_units_share_alike_whatever_their_size() -> None:
    units = {"a": [0.5, -0.2], "b": [0.1, 0.0, 0.3, -1.0]}
    row = RealizedRow(
        step="preconditioned",
        pairing="held_out",
        scale=1.0,
        predicted=None,
        delta_h=None,
        se=None,
        ci95=None,
        estimator="snis",
        h_before=None,
        h_after=None,
        ess=None,
        ess_fraction=None,
        khat=None,
        N=6,
        units=[RealizedUnit(id=name, d=None, ess=None, log_w=list(w)) for name, w in units.items()],
    )
    shares = torch.tensor([1 / 2] * 2 + [1 / 4] * 4)
    expected = ess(torch.tensor(units["a"] + units["b"], dtype=torch.float64), shares) / 6
    assert row_ess_at_scale(row, 1.0) == pytest.approx(expected)
    lost = RealizedUnit(id="c", d=None, ess=None, log_w=[None])
    assert math.isnan(row_ess_at_scale(msgspec.structs.replace(row, units=[*row.units, lost]), 1.0))


def swept(**changes: Any) -> Sweep:
    """Of H(k) = −0.01·k + 0.002·k²."""
    points = [
        SweepPoint(
            scale=k,
            predicted=-0.01 * k,
            delta_h=-0.01 * k + 0.002 * k * k,
            se=None,
            departure=None,
            departure_se=None,
            departure_ci95=None,
            ess_fraction=None,
        )
        for k in (0.5, 1.0)
    ]
    held: dict[str, Any] = {
        "step": "adamw",
        "pairing": "held_out",
        "estimator": "matched",
        "scales": [0.5, 1.0],
        "points": points,
        "curvature": 0.002,
        "curvature_se": None,
        "linear_range": None,
    }
    return Sweep(**(held | changes))


@pytest.mark.parametrize("scale", [0.0, 0.5, 1.0, 3.0])
def test_the_change_at_a_scale_is_the_parabola_of_the_sweep(scale: float) -> None:
    parts = change_at_scale(swept(), scale)
    assert parts == pytest.approx((-0.01 * scale, 0.002 * scale * scale))


def test_without_curvature_it_is_first_order_and_without_a_prediction_nothing() -> None:
    assert change_at_scale(swept(curvature=None), 2.0) == (-0.02, 0.0)
    assert change_at_scale(swept(points=[]), 2.0) is None
