"""The effective sample size of a smaller step, against the engine's own."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from probe_engine.estimators.weights import ess, ess_fraction_without
from probe_engine.report import RealizedRow, RealizedUnit, Sweep, SweepPoint
from probe_tui.renderables.whatif import change_at_scale, ess_at_scale, ess_without, row_ess_at_scale

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


def measured(*units: list[float | None]) -> RealizedRow:
    return RealizedRow(
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
        units=[RealizedUnit(id=f"u{n}", d=None, ess=None, log_w=list(w)) for n, w in enumerate(units)],
    )


def test_units_share_alike_whatever_their_size() -> None:
    a, b = [0.5, -0.2], [0.1, 0.0, 0.3, -1.0]
    shares = torch.tensor([1 / 2] * 2 + [1 / 4] * 4)
    expected = ess(torch.tensor(a + b, dtype=torch.float64), shares) / 6
    assert row_ess_at_scale(measured(a, b), 1.0) == pytest.approx(expected)
    assert math.isnan(row_ess_at_scale(measured(a, b, [None]), 1.0))


@given(st.lists(st.lists(st.floats(-30, 30), min_size=1, max_size=5), min_size=2, max_size=6))
def test_leaving_a_unit_out_is_the_ess_of_the_others(units: list[list[float]]) -> None:
    """Brute force, and the engine's own."""
    expected = [row_ess_at_scale(measured(*units[:n], *units[n + 1 :]), 1.0) for n in range(len(units))]
    assert ess_without(measured(*units)) == pytest.approx(expected, rel=1e-9)
    log_w = torch.tensor([x for unit in units for x in unit], dtype=torch.float64)
    shares = torch.tensor([1 / len(unit) for unit in units for _ in unit], dtype=torch.float64)
    index = torch.tensor([n for n, unit in enumerate(units) for _ in unit])
    assert ess_fraction_without(log_w, shares, index).tolist() == pytest.approx(expected, rel=1e-9)


def test_of_what_is_left_out_or_is_no_number_nothing_is_left() -> None:
    assert all(map(math.isnan, ess_without(measured([0.5, -0.2]))))
    assert all(map(math.isnan, ess_without(measured([0.5], [None]))))
    assert ess_fraction_without(torch.zeros(2), torch.ones(2), torch.zeros(2, dtype=torch.long)).isnan().all()


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
