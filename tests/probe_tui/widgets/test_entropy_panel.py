"""The tab Entropy: every estimate on one axis, and one cursor for all of its numbers."""

from __future__ import annotations

import pytest
from finished_states import ADAMW, SPLIT, U_STATISTIC, report, state
from msgspec.structs import replace
from rich.cells import cell_len
from unit_states import Host

from probe_engine.events import EstimateEvent, Failed
from probe_engine.report import Estimates, RunInfo
from probe_tui.renderables.palette import COLOURBLIND, DEFAULT
from probe_tui.state import ScreenState, fold
from probe_tui.widgets.entropy import EntropyPanel, entropy_lines
from probe_tui.widgets.number_panel import NumberList

SIZES = [(60, 13), (80, 17), (90, 34), (170, 50)]


def rows(width: int, **changes: object) -> list[str]:
    lines = entropy_lines(report(**changes), width=width, palette=DEFAULT)
    return [row for line in lines for row in line.text.plain.split("\n")]


def test_a_headline_the_forest_and_the_numbers() -> None:
    shown = rows(80)
    assert shown[:4] == [
        "δH₁ = -0.00125 nats per token slot, 95% [-0.0016, -0.0009]",
        "Entropy falls: the whole interval lies below 0.",
        "",
        "predicted δH₁, nats/slot, 95% intervals",
    ]
    plot = [
        ("U-statistic", "-0.00125 [-0.0016, -0.0009] jackknife"),
        ("split E/U", "-0.0012 [-0.00156, -0.00084] Welch"),
        ("V-statistic", "-0.0014 [-0.0018, -0.001]"),
        ("measured ΔĤ, after the step on a copy", ""),
        ("precond held-out", "-0.00118 [-0.0015, -0.00088] matched"),
        ("precond same-batch", "-0.00118 [-0.0015, -0.00088] matched"),
    ]
    for row, (label, said) in zip(shown[4:], plot, strict=False):
        assert row.startswith(label)
        assert row.endswith(said)
        assert ("●" in row) == bool(said)
    assert shown[11].split() == ["-0.0018", "0", "nats/slot"]
    assert shown[12].split() == ["◀", "falls", "rises", "▶"]
    table = " ".join(" ".join(shown).split())
    for words in (
        "U_cross 12.5 nats/slot per η δH₁ = −η·U_cross",
        "needed 9 prompts",
        "B_E 33 prompts",
        "stale ratio 1.05",
        "only sign and rank compare covariance -0.2",
    ):
        assert words in table


def test_the_optimizers_own_step_comes_first_and_its_parts_are_bars() -> None:
    estimates = replace(report().estimates, adamw=ADAMW)
    shown = rows(80, estimates=estimates)
    assert shown[0] == "δH₁ = -0.0011 nats per token slot, 95% [-0.0014, -0.0008]"
    assert shown[4].startswith("optimizer's step")
    first = shown.index("what moves it: the parts of the optimizer's step, nats/slot") + 1
    bars = shown[first : first + 4]
    assert [bar.split()[0] for bar in bars] == ["gradient", "clipping", "momentum", "weight"]
    assert [bar.split("│")[0].count("█") for bar in bars] == [8, 0, 20, 0]
    assert [bar.split("│")[1].count("█") for bar in bars] == [0, 6, 0, 0]
    paths = {line.path for line in entropy_lines(report(estimates=estimates), width=80, palette=DEFAULT)}
    assert ".estimates.adamw.parts.momentum" in paths


@pytest.mark.parametrize("width", [26, 40, 54, 80, 120, 200])
def test_no_row_is_wider_than_the_panel_and_no_word_is_cut(width: int) -> None:
    shown = rows(width)
    assert max(cell_len(row) for row in shown) <= width
    if width >= 54:
        assert not [row for row in shown if "…" in row]


def test_where_it_is_narrow_the_meaning_stands_below_its_number() -> None:
    wide, narrow = rows(80), rows(54)
    (place,) = (i for i, row in enumerate(narrow) if row.startswith("U_cross"))
    assert narrow[place + 1] == "    δH₁ = −η·U_cross: positive, entropy falls"
    assert [row for row in wide if row.startswith("U_cross") and row.endswith("entropy falls")]


def test_an_interval_that_does_not_fit_moves_as_a_whole() -> None:
    assert rows(54)[:2] == ["δH₁ = -0.00125 nats per token slot", "95% [-0.0016, -0.0009]"]


def test_before_the_step_is_taken_there_are_no_measured_rows() -> None:
    assert "measured" not in "\n".join(rows(80, realized=[]))


def test_no_number_at_all_says_so() -> None:
    nan = Estimates(u_statistic=replace(U_STATISTIC, delta_h1=None, ci95=None))
    assert rows(120, estimates=nan, realized=[])[0].startswith("There is no estimate of δH₁")
    assert entropy_lines(report(estimates=Estimates()), width=80, palette=DEFAULT) == []


def test_the_last_line_can_be_reached() -> None:
    assert entropy_lines(report(), width=80, palette=DEFAULT)[-1].path


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.asyncio
async def test_the_cursor_goes_through_all_numbers(size: tuple[int, int]) -> None:
    app = Host(EntropyPanel(), state())
    async with app.run_test(size=size) as pilot:
        numbers = app.query_one(NumberList)
        numbers.focus()
        await pilot.pause()
        paths = [app.panel.json_path()]
        await pilot.press("down")
        paths.append(app.panel.json_path())
        for _ in range(5 + 18 - 1):
            numbers.action_cursor_down()
            paths.append(app.panel.json_path())
        headline, *others = paths
        assert headline == ".estimates.u_statistic.delta_h1"
        assert len(set(others)) == 23
        assert others[:4] == [
            ".estimates.u_statistic.delta_h1",
            ".estimates.split.delta_h1",
            ".estimates.v_statistic.delta_h1",
            ".realized[0].delta_h",
        ]
        assert others[-1] == ".estimates.baselines.covariance"
        assert app.panel.copy_text() == "covariance = -0.2"
        await pilot.pause()
        assert numbers.scroll_offset.y == numbers.max_scroll_y
        await pilot.press("home", "down", "down")
        assert app.panel.copy_text() == "δH₁ split E/U = -0.0012 nats/slot, 95% [-0.00156, -0.00084]"


@pytest.mark.asyncio
async def test_the_cursor_stays_on_its_number_while_others_come() -> None:
    early = state(realized=[], verdict=None)
    app = Host(EntropyPanel(), early)
    async with app.run_test(size=(80, 17)) as pilot:
        app.query_one(NumberList).focus()
        await pilot.press("end", "up")
        assert app.panel.json_path() == ".gradient_flow.mapping_correlation"
        app.panel.show(state())
        await pilot.pause()
        assert app.panel.json_path() == ".gradient_flow.mapping_correlation"
        await pilot.press("home", "down")
        app.panel.show(state(estimates=Estimates(split=SPLIT)))
        await pilot.pause()
        assert app.panel.json_path() == ".estimates.split.delta_h1"


@pytest.mark.asyncio
async def test_what_is_the_same_is_not_drawn_again(monkeypatch: pytest.MonkeyPatch) -> None:
    app = Host(EntropyPanel(), state())
    async with app.run_test(size=(80, 17)) as pilot:
        await pilot.pause()
        numbers = app.query_one(NumberList)
        drawn: list[object] = []
        monkeypatch.setattr(numbers, "set_options", drawn.append)
        app.panel.show(state())
        assert drawn == []
        app.palette = COLOURBLIND
        app.panel.show(state())
        assert len(drawn) == 1


@pytest.mark.asyncio
async def test_a_new_size_keeps_the_cursor_and_fills_the_width() -> None:
    app = Host(EntropyPanel(), state())
    async with app.run_test(size=(60, 13)) as pilot:
        app.query_one(NumberList).focus()
        await pilot.press("down", "down")
        await pilot.resize_terminal(120, 40)
        await pilot.pause()
        assert app.panel.json_path() == ".estimates.split.delta_h1"
        widths = [cell_len(str(option.prompt).split("\n")[0]) for option in app.query_one(NumberList).options]
        assert max(widths) > 60


@pytest.mark.asyncio
async def test_before_there_is_an_estimate_it_says_what_brings_one() -> None:
    app = Host(EntropyPanel(), ScreenState())
    async with app.run_test(size=(60, 13)) as pilot:
        await pilot.pause()
        numbers = app.query_one(NumberList)
        assert "stage estimate: press n" in " ".join(str(numbers.options[0].prompt).split())
        assert (app.panel.json_path(), app.panel.copy_text()) == (".estimates", "")
        failed = Failed(message="m", remedy="r", run=RunInfo())
        app.panel.show(fold(ScreenState(), failed))
        assert "the run ended before" in str(numbers.options[0].prompt)
        app.panel.show(fold(ScreenState(), EstimateEvent(estimates=report().estimates)))
        assert app.panel.json_path() == ".estimates.u_statistic.delta_h1"
