"""The step sweep as text: a row a scale, and the end of the linear range where it belongs."""

from __future__ import annotations

from typing import Any

import pytest
from finished_states import report
from rich.cells import cell_len

from probe_engine.report import SelfInfluence, Sweep, SweepPoint
from probe_tui.plain import sweep_lines
from probe_tui.renderables.palette import DEFAULT
from probe_tui.renderables.sweep import sweep_rows
from probe_tui.sweep_words import range_words, self_influence_words
from probe_tui.widgets.realized_lines import SCALES as SCALES_ASKED
from probe_tui.widgets.realized_lines import TAKEN, realized_lines

SCALES = (0.25, 0.5, 1.0, 2.0)


def point(k: float) -> SweepPoint:
    """δH₁ = −0.01, C = 0.002."""
    bend = 0.002 * k * k
    return SweepPoint(
        scale=k,
        predicted=-0.01 * k,
        delta_h=-0.01 * k + bend,
        se=0.001 * k,
        departure=bend,
        departure_se=0.1 * bend,
        departure_ci95=(0.8 * bend, 1.2 * bend),
        ess_fraction=1 - 0.1 * k,
    )


def swept(**changes: Any) -> Sweep:
    held: dict[str, Any] = {
        "step": "preconditioned",
        "pairing": "held_out",
        "estimator": "matched",
        "scales": list(SCALES),
        "points": [point(k) for k in SCALES],
        "curvature": 0.002,
        "curvature_se": 0.0002,
        "linear_range": 0.6,
    }
    return Sweep(**(held | changes))


def rows(sweep: Sweep, width: int = 80) -> list[str]:
    return [text.plain for text in sweep_rows(sweep, width=width, palette=DEFAULT, unit="nats/slot")]


def test_a_row_a_scale_between_first_order_and_the_axis() -> None:
    shown = rows(swept())
    assert shown[0].startswith("δH₁")
    assert [r.split(" ")[0] for r in shown[1:3]] == ["¼", "½"]
    assert shown[3].startswith("── the linear range ends at 0.6 of this step ──")
    assert [r.split(" ")[0] for r in shown[4:6]] == ["1", "2"]
    assert "-0.0095 [-0.0096, -0.0094] ESS/N 0.97" in shown[1]
    assert "-0.006 [-0.0068, -0.0052]" in shown[5]
    assert len(shown) == 9


@pytest.mark.parametrize(
    ("reach", "place", "said"),
    [
        (0.1, 1, "the linear range ends at 0.1 of this step"),
        (2.0, 5, "holds up to 2 × this step, the longest tried"),
        (0.5, 3, "beyond, weights are too uneven"),
        (None, 1, "too uneven to say"),
    ],
)
def test_the_mark_stands_behind_the_last_scale_that_holds(reach, place, said) -> None:
    sweep = swept(linear_range=reach)
    assert said in rows(sweep)[place]
    assert said in range_words(sweep)


@pytest.mark.parametrize("width", [20, 40, 60, 120])
def test_rows_fit(width) -> None:
    assert all(cell_len(r) <= width for r in rows(swept(), width))


def test_unknown_numbers_are_dashes() -> None:
    empty = SweepPoint(
        scale=1.0,
        predicted=None,
        delta_h=None,
        se=None,
        departure=None,
        departure_se=None,
        departure_ci95=None,
        ess_fraction=None,
    )
    sweep = swept(points=[empty], scales=[1.0], linear_range=None, curvature=None, curvature_se=None)
    assert "—" in rows(sweep)[2]
    assert "ΔĤ/k —" in sweep_lines(sweep)[1]


@pytest.mark.parametrize("width", [30, 80])
def test_the_panel_has_a_path_for_every_number(width) -> None:
    own = SelfInfluence(value=0.003, diagonal_share=0.9)
    lines = realized_lines(
        report(sweep=swept(), self_influence=own), scale=TAKEN, width=width, palette=DEFAULT
    )
    paths = [line.path for line in lines]
    for index in range(4):
        assert f".sweep.points[{index}].delta_h" in paths
    assert {".sweep.linear_range", ".sweep.curvature", ".self_influence.value"} <= set(paths)
    mark = next(line for line in lines if line.path == ".sweep.linear_range")
    assert mark.copied == "the linear range ends at 0.6 of this step"
    assert "90.0% of η·X̄·PȲ" in self_influence_words(own, "nats/slot")


def what_if(scale: float, **changes: Any) -> str:
    lines = realized_lines(report(**changes), scale=SCALES_ASKED.index(scale), width=80, palette=DEFAULT)
    return next(line.copied for line in lines if line.path.endswith(".log_w") and "[0]" in line.path)


@pytest.mark.parametrize(
    ("scale", "said"),
    [
        (0.5, "ΔH ≈ -0.0045 nats/slot, 0.0005 of it from curvature"),
        (1.0, "ΔH ≈ -0.008 nats/slot, 0.002 of it from curvature"),
        (3.0, "ΔH ≈ -0.012 nats/slot, 0.018 of it from curvature (longer than any step tried)"),
    ],
)
def test_another_step_shows_its_change_of_entropy_beside_its_ess(scale: float, said: str) -> None:
    shown = what_if(scale, sweep=swept())
    assert "held-out ESS/N ≈" in shown
    assert shown.endswith(said)


def test_without_a_sweep_of_that_step_no_change_is_said() -> None:
    straight = swept(curvature=None, linear_range=0.5)
    assert what_if(0.5, sweep=straight).endswith("ΔH ≈ -0.005 nats/slot to first order")
    assert what_if(1.0, sweep=straight).endswith("to first order, which is not known to hold there")
    assert "ΔH" not in what_if(0.5, sweep=swept(step="adamw"))
    assert "ΔH" not in what_if(0.5)


def test_self_influence_says_its_step_and_error() -> None:
    own = SelfInfluence(step="adamw", estimator="per_decision", value=0.003, se=0.0004, diagonal_share=0.9)
    said = self_influence_words(own, "nats/slot")
    assert said.startswith("self-influence of the adamw step: same-batch less held-out ΔĤ is 0.003 ± 0.0004")


def test_plain_says_the_same() -> None:
    shown = sweep_lines(swept(), "nats/slot")
    assert shown[0] == "  step sweep, preconditioned step, held-out matched: ΔĤ/k at k × step, nats/slot"
    assert "½ × step" in shown[2]
    assert "ΔĤ/k -0.009, first order -0.01, departure 0.001 ± 0.0001" in shown[2]
    assert "the linear range ends at 0.6 of this step" in shown[5]
    assert "curvature C = 0.002 ± 0.0002" in shown[6]
