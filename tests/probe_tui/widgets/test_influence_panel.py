"""The tab Influence: a cursor on K, and its cell in words."""

from __future__ import annotations

import pytest
import unit_states
from rich.cells import cell_len
from unit_states import Host, finally_, state_of

from probe_engine.events import EstimateEvent, Failed, Part
from probe_engine.report import Estimates, Influence, Number, RunInfo
from probe_tui.renderables.palette import DEFAULT, MONO, Palette
from probe_tui.screens.prompt import PromptScreen
from probe_tui.state import ScreenState
from probe_tui.widgets.influence import (
    SORTINGS,
    InfluencePanel,
    arranged,
    by_column_mean,
    by_row_mean,
    largest,
)

SIZES = [(60, 13), (80, 17), (90, 34), (170, 50)]
ROWS = unit_states.units(6)
FIRST = ("tab", "home", *["pageup"] * 12)
"""To the first cell."""
K: list[list[Number]] = [
    [-9.0, 1.0, 0.5, None, 0.0, 1.0],
    [0.1, 4.0, 0.5, 0.2, 0.3, 1.0],
    [-1.0, -2.0, -3.0, -4.0, -5.0, -6.0],
    [None, None, None, None, None, None],
    [0.0, 0.0, 0.0, 0.0, 0.0, 0.0],
    [-1.0, 1.0, -1.0, 1.0, -1.0, -2.0],
]
INFLUENCE = Influence(ids=[u.id for u in ROWS], K=K)


def app_of(influence: Influence = INFLUENCE) -> Host:
    rows = unit_states.units(len(influence.ids))
    return Host(InfluencePanel(), state_of(*finally_(rows), Part(influence=influence)))


def large(count: int) -> Influence:
    influence = unit_states.influence(unit_states.units(count)).influence
    assert influence is not None
    return influence


def lines(app: Host) -> list[str]:
    panel = app.panel
    assert isinstance(panel, InfluencePanel)
    return panel.render().plain.split("\n")


def words(app: Host) -> str:
    return " ".join(" ".join(lines(app)).split())


def test_the_unit_whose_entropy_falls_most_is_the_first_row_and_an_unknown_one_the_last() -> None:
    assert by_row_mean(INFLUENCE) == (2, 5, 4, 1, 0, 3)


def test_sorting_keeps_the_diagonal_and_every_cell() -> None:
    order = by_row_mean(INFLUENCE)
    shown = arranged(INFLUENCE, order)
    assert [shown.K[n][n] for n in range(6)] == [K[u][u] for u in order]
    assert all(
        shown.K[a][b] == K[INFLUENCE.ids.index(row)][INFLUENCE.ids.index(column)]
        for a, row in enumerate(shown.ids)
        for b, column in enumerate(shown.ids)
    )


def test_the_largest_influence() -> None:
    """Beside the diagonal: that a prompt moves itself is no news."""
    assert largest(INFLUENCE) == (2, 5)
    assert largest(Influence(ids=["a"], K=[[None]])) == (0, 0)


@pytest.mark.asyncio
async def test_keys_move_the_cursor_and_stay_inside() -> None:
    app = app_of()
    async with app.run_test(size=(80, 17)) as pilot:
        await pilot.press("tab")
        assert app.panel.json_path() == ".influence.K[2][5]", "the largest beside the diagonal"
        await pilot.press(*FIRST)
        assert app.panel.json_path() == ".influence.K[0][0]"
        await pilot.press("down", "right", "right")
        assert app.panel.json_path() == ".influence.K[1][2]"
        await pilot.press("up", "up", "left")
        assert app.panel.json_path() == ".influence.K[0][1]"
        await pilot.press("end", "pagedown", "down", "right")
        assert app.panel.json_path() == ".influence.K[5][5]"
        await pilot.press("home", "pageup")
        assert app.panel.json_path() == ".influence.K[0][0]"


@pytest.mark.asyncio
async def test_where_the_rao_blackwell_form_is_the_headline_its_matrix_is_shown() -> None:
    turned = [[None if x is None else -x for x in row] for row in K]
    both = Influence(ids=INFLUENCE.ids, K=K, K_rb=turned)
    told = EstimateEvent(estimates=Estimates(x_estimator="rao_blackwell"))
    app = Host(InfluencePanel(), state_of(*finally_(ROWS), Part(influence=both), told))
    async with app.run_test(size=(90, 34)) as pilot:
        await pilot.press(*FIRST, "down", "down", "right")
        assert app.panel.json_path() == ".influence.K_rb[2][1]"
        assert "· Rao-Blackwell" in words(app)
        assert "training on 2 moves the entropy of 3 by 2 nats/slot: it rises" in words(app)


@pytest.mark.asyncio
async def test_the_cell_is_spelt_out_with_both_prompts() -> None:
    app = app_of()
    async with app.run_test(size=(90, 34)) as pilot:
        await pilot.press(*FIRST, "down", "down", "right")
        said = words(app)
        assert "training on 2 moves the entropy of 3 by -2 nats/slot: it falls" in said
        assert "mean of the others: row -3.6, column 0" in said
        assert f"entropy of 3 {ROWS[2].prompt}" in said
        assert f"trained on 2 {ROWS[1].prompt}" in said
        assert app.panel.copy_text() == (
            f"training on u1 moves the entropy of u2 by -2 nats/slot\n"
            f"entropy of u2: {ROWS[2].prompt}\n"
            f"trained on u1: {ROWS[1].prompt}"
        )


@pytest.mark.asyncio
async def test_sorting_takes_the_cursor_along() -> None:
    app = app_of()
    async with app.run_test(size=(80, 17)) as pilot:
        await pilot.press(*FIRST, "down", "down", "right", "s")
        assert app.panel.json_path() == ".influence.K[2][1]"
        assert "by row mean" in words(app)
        assert "training on 2 moves the entropy of 3 by -2" in words(app)
        await pilot.press("down")
        assert app.panel.json_path() == ".influence.K[5][1]"
        for order in ("by column mean", "by row 6: who trains on it", "by column 2: whom it trains"):
            await pilot.press("s")
            assert app.panel.json_path() == ".influence.K[5][1]"
            assert order in words(app)
        await pilot.press("s")
        assert " · by " not in words(app)
        await pilot.click(app.panel, offset=(10, 0))
        assert "by row mean" in words(app)
        await pilot.press("S", "S")
        assert "by column 2" in words(app)


def test_each_sorting_begins_where_entropy_falls_most_and_ends_with_the_unknown() -> None:
    row, column = SORTINGS[-2], SORTINGS[-1]
    assert row.order(INFLUENCE, 0, 1) == (0, 4, 2, 1, 5, 3)
    assert column.order(INFLUENCE, 0, 1) == (2, 4, 0, 5, 1, 3)
    assert by_column_mean(INFLUENCE) == (4, 5, 3, 0, 1, 2)


@pytest.mark.asyncio
@pytest.mark.parametrize("palette", [DEFAULT, MONO])
async def test_the_mouse_chooses_a_cell_also_where_k_has_scrolled(palette: Palette) -> None:
    app = app_of(large(60))
    app.palette = palette
    async with app.run_test(size=(80, 17)) as pilot:
        await pilot.press(*FIRST, *["pagedown"] * 3)
        panel = app.panel
        assert isinstance(panel, InfluencePanel)
        panel.action_move(0, 30)
        shown = lines(app)
        assert "rows 27–" in shown[0]
        assert "columns 14–" in shown[0]
        row = next(y for y, line in enumerate(shown) if line.split()[:1] == ["29"])
        column = shown[1].index("25") + 1  # the numbers end over the second half of a cell
        await pilot.click(app.panel, offset=(column + 1, row))
        assert app.panel.json_path() == ".influence.K[28][24]"
        assert "training on 25 moves the entropy of 29 by" in words(app)
        mean, gutter = shown[1].index("mean") + 1, 2
        for beside in ((column, 16), (column, 12), (column, 1), (mean, row), (mean - 1, row), (gutter, row)):
            await pilot.click(app.panel, offset=beside)
            assert app.panel.json_path() == ".influence.K[28][24]", f"{beside} is no cell"


@pytest.mark.asyncio
async def test_enter_opens_the_row_and_its_neighbours_are_the_other_rows() -> None:
    app = app_of()
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press(*FIRST, "s", "up", "right", "enter")
        screen = app.screen
        assert isinstance(screen, PromptScreen)
        assert screen.unit.id == "u1"
        await pilot.press("right")
        assert screen.unit.id == "u0"
        assert app.panel.json_path() == '.units[] | select(.id=="u0")'
        assert app.panel.copy_text().startswith("prompt u0")
        await pilot.press("escape")
        assert app.panel.json_path() == ".influence.K[0][3]"


@pytest.mark.asyncio
async def test_a_second_click_on_a_cell_opens_its_row() -> None:
    app = app_of()
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press(*FIRST, "down")
        row = next(y for y, line in enumerate(lines(app)) if line.split()[:1] == ["4"])
        column = lines(app)[1].index("5")
        await pilot.click(app.panel, offset=(column + 1, row))
        assert app.panel.json_path() == ".influence.K[3][4]"
        await pilot.click(app.panel, offset=(column + 1, row))
        assert isinstance(app.screen, PromptScreen)
        assert app.screen.unit.id == "u3"


@pytest.mark.asyncio
async def test_the_cursor_stays_while_the_run_goes_on_and_begins_anew_with_another_k() -> None:
    app = app_of()
    async with app.run_test(size=(80, 17)) as pilot:
        await pilot.press(*FIRST, "down", "right")
        app.panel.show(state_of(unit_states.method(kept=True), after=app.state))
        assert app.panel.json_path() == ".influence.K[1][1]"
        other = Influence(ids=["u0", "u1"], K=[[1.0, 2.0], [-3.0, 1.0]])
        app.panel.show(state_of(Part(influence=other), after=app.state))
        assert app.panel.json_path() == ".influence.K[1][0]"
        app.panel.show(ScreenState())
        assert app.panel.json_path() == ".influence"
        assert app.panel.copy_text() == ""
        await pilot.press("down", "enter", "s")
        await pilot.click(app.panel, offset=(5, 3))
        assert not isinstance(app.screen, PromptScreen)


@pytest.mark.asyncio
@pytest.mark.parametrize("size", [*SIZES, (20, 6), (9, 2)])
@pytest.mark.parametrize("count", [2, 60, 120])
async def test_at_every_size_it_fits(size: tuple[int, int], count: int) -> None:
    app = app_of(large(count))
    async with app.run_test(size=size) as pilot:
        for keys in (("tab", "s"), ("pagedown", "end"), ("pagedown",) * 12):
            await pilot.press(*keys)
            shown = lines(app)
            assert len(shown) <= size[1]
            assert max(cell_len(line) for line in shown) <= size[0] - 2 or size[0] < 10
        if size[0] >= 80:
            assert "…" not in words(app)


@pytest.mark.asyncio
async def test_the_labels_of_the_cursor_stand_out() -> None:
    app = app_of(large(30))
    async with app.run_test(size=(80, 17)) as pilot:
        await pilot.press(*FIRST, "pagedown", "right", "right")
        panel = app.panel
        assert isinstance(panel, InfluencePanel)
        shown, (u, v) = panel.render(), _cell(panel)
        marked = [shown.plain[s.start : s.end] for s in shown.spans if str(s.style) == "reverse"]
        assert [mark.strip() for mark in marked] == [str(v + 1), str(u + 1)]


def _cell(panel: InfluencePanel) -> tuple[int, int]:
    u, v = panel.json_path().removeprefix(".influence.K[").removesuffix("]").split("][")
    return int(u), int(v)


@pytest.mark.asyncio
async def test_long_prompts_are_cut_and_nothing_in_them_is_markup() -> None:
    units = [
        unit_states.unit(0, prompt="[b]x[/b]\n\x1b[2J 漢字漢字 " + "word " * 30_000),
        unit_states.unit(1),
    ]
    k = Influence(ids=["u0", "u1"], K=[[1.0, 0.0], [0.0, 0.0]])
    app = Host(InfluencePanel(), state_of(*finally_(units), Part(influence=k)))
    for size, room in (((80, 17), 1), ((90, 34), 3)):
        async with app.run_test(size=size) as pilot:
            await pilot.pause()
            shown = lines(app)
            start = next(y for y, line in enumerate(shown) if line.startswith("entropy of 1"))
            assert "[b]x[/b] ␛[2J 漢字漢字 word" in shown[start]
            assert shown[start + room - 1].endswith("…")
            assert shown[start + room].startswith("trained on 1")
            assert len(shown) == size[1]
        app = Host(InfluencePanel(), app.state)


@pytest.mark.asyncio
async def test_without_k_it_says_why() -> None:
    app = Host(InfluencePanel(), ScreenState())
    async with app.run_test(size=(60, 13)) as pilot:
        await pilot.pause()
        assert "Comes with the stage estimate: press n" in words(app)
        app.panel.show(state_of(unit_states.method(kept=True)))
        assert "Comes with the stage estimate; measure is at work" in words(app)
        app.panel.show(state_of(unit_states.method(kept=False)))
        assert "a larger --memory-budget" in words(app)
        assert "--method fused" in words(app)
        app.panel.show(state_of(Failed(message="killed", remedy="", run=RunInfo())))
        assert "the run ended before estimate had a result" in words(app)
