"""The tab Units: its rows, their order, and what opens."""

from __future__ import annotations

import pytest
import unit_states
from rich.cells import cell_len
from unit_states import so_far, state_of
from units_tab import (
    ROWS,
    SIZE,
    SIZES,
    app_of,
    by_size,
    caption,
    colours_of,
    drawn,
    final,
    moved,
    rows_of,
    show,
    table,
    words,
)

from probe_engine.report import UnitRow
from probe_tui.renderables.palette import COLOURBLIND, Palette
from probe_tui.screens.prompt import PromptScreen
from probe_tui.widgets.unit_columns import Column
from probe_tui.widgets.unit_table import UnitTable
from probe_tui.widgets.units import UnitsPanel

pytestmark = pytest.mark.asyncio


async def test_a_row_says_what_its_unit_does() -> None:
    rows = [unit_states.unit(0, s=-3e-5, r=-1e-5), unit_states.unit(1, r=4e-5), unit_states.unit(2)]
    app = app_of(final(rows))
    async with app.run_test(size=SIZE) as pilot:
        await pilot.pause()
        assert [line.split() for line in rows_of(app)[:3]] == [
            ["4e-05", "133.3%", "—", "U", "0.5", "±", "0.5", "13", "2", "Sort", "the", "digits…"],
            ["-1e-05", "-33.3%", "-3e-05", "E", "0.5", "±", "0.5", "13", "1", "Sort", "the", "digits…"],
            ["—", "—", "—", "E", "0.5", "±", "0.5", "13", "3", "Sort", "the", "digits…"],
        ]
        assert colours_of(app, row=1) == {app.palette.falls}
        app.palette = COLOURBLIND
        await show(app, pilot, app.state)
        assert colours_of(app, row=1) == {COLOURBLIND.falls}


async def test_shares_of_changes_that_cancel_are_no_number() -> None:
    rows = [unit_states.unit(0, r=-1e-5), unit_states.unit(1, r=1.0001e-5)]
    app = app_of(final(rows))
    async with app.run_test(size=SIZE) as pilot:
        await pilot.pause()
        assert [line.split()[1] for line in rows_of(app)[:2]] == [">999%", "<-999%"]


async def test_on_the_first_row_the_cursor_sees_the_largest() -> None:
    app = app_of(state_of(*so_far(ROWS)))
    async with app.run_test(size=SIZE) as pilot:
        await show(app, pilot, state_of(*so_far(moved(ROWS, 3)), after=app.state))
        assert table(app).cursor_row == 0
        assert table(app).selected == by_size(moved(ROWS, 3))[0]


async def test_only_the_rows_in_sight_are_written(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[tuple[str, str]] = []
    style = Column.style

    def counted(column: Column, unit: UnitRow, palette: Palette) -> str:
        written.append((unit.id, column.title))
        return style(column, unit, palette)

    monkeypatch.setattr(Column, "style", counted)
    app = app_of(final(unit_states.units(500)))
    async with app.run_test(size=SIZE) as pilot:
        await pilot.pause()
        assert set(table(app).ids[:5]) <= {id for id, _ in written}
        assert len({id for id, _ in written}) < 2 * SIZE[1], "a row for each layout on the way, at most"
        written.clear()
        await pilot.press("down")
        assert {id for id, _ in written} == set(table(app).ids[:2])


@pytest.mark.parametrize("size", SIZES)
async def test_every_column_sorts_both_ways_what_is_unknown_last(size: tuple[int, int]) -> None:
    rows = [*ROWS[:5], unit_states.unit(77, prompt="a prompt without numbers")]
    app = app_of(final(rows))
    async with app.run_test(size=size) as pilot:
        await pilot.pause()
        shown = table(app)
        assert shown.ids == [*by_size(rows[:5]), "u77"]
        await pilot.press("S")
        assert shown.ids == [*by_size(rows[:5])[::-1], "u77"]
        await pilot.press("s", "s")
        assert shown.sorted_by.title == "+η·s_n"
        assert shown.ids[:3] == [id for id in by_size(rows[:5]) if id in ("u0", "u2", "u4")]
        titles = [column.title for column in shown.columns]
        assert "+η·s_n ▾" in drawn(app)[shown.region.y]
        assert drawn(app)[shown.region.y].count("▾") == 1
        for column in range(len(titles)):
            await pilot.press("s")
            assert shown.sorted_by.title == titles[(3 + column) % len(titles)]


async def test_a_click_on_a_title_sorts() -> None:
    app = app_of(final(ROWS))
    async with app.run_test(size=SIZE) as pilot:
        await pilot.pause()
        x = drawn(app)[table(app).region.y].index("prompt")
        await pilot.click(table(app), offset=(x, 0))
        prompts = {u.id: u.prompt for u in ROWS}
        assert table(app).ids == sorted(prompts, key=lambda id: prompts[id])
        await pilot.click(table(app), offset=(x, 0))
        assert table(app).ids == sorted(prompts, key=lambda id: prompts[id], reverse=True)


async def test_a_filter_holds_prompts_and_ids() -> None:
    rows = [*ROWS, unit_states.unit(99, r=1e-5, prompt="Über [bold]alles[/bold]")]
    app = app_of(final(rows))
    async with app.run_test(size=SIZE) as pilot:
        panel = app.panel
        assert isinstance(panel, UnitsPanel)
        panel.filter("ÜBER")
        assert table(app).ids == ["u99"]
        assert caption(app).startswith("1 of 13 units with “über”")
        panel.filter("u1")
        assert set(table(app).ids) == {"u1", "u10", "u11"}
        panel.filter("nothing has this")
        await pilot.pause()
        assert table(app).ids == []
        assert caption(app).startswith("0 of 13 units with")
        assert "No unit holds “nothing has this”: escape clears the filter." in words(app)
        await pilot.press("tab", "left")
        assert "escape gives the range up, once more clears the filter." in words(app)
        await pilot.press("escape", "tab", "tab")
        await pilot.press("enter")
        assert panel.copy_text() == ""
        assert panel.json_path() == ".units"
        panel.filter("")
        assert len(table(app).ids) == 13


async def test_a_unit_opens_and_the_cursor_follows_to_its_neighbours() -> None:
    app = app_of(final(ROWS))
    async with app.run_test(size=SIZE) as pilot:
        await pilot.press("down", "enter")
        screen = app.screen
        assert isinstance(screen, PromptScreen)
        order = by_size(ROWS)
        assert screen.unit.id == order[1]
        await pilot.press("right")
        assert screen.unit.id == order[2]
        assert app.panel.json_path() == f'.units[] | select(.id=="{order[2]}")'
        assert app.panel.copy_text().startswith(f"prompt {order[2]}")
        await pilot.press("escape")
        assert table(app).selected == order[2]


async def test_a_second_click_on_a_row_opens_it() -> None:
    app = app_of(final(ROWS))
    async with app.run_test(size=SIZE) as pilot:
        await pilot.pause()
        await pilot.click(UnitTable, offset=(5, 3))
        assert not isinstance(app.screen, PromptScreen)
        await pilot.click(UnitTable, offset=(5, 3))
        assert isinstance(app.screen, PromptScreen)


async def test_prompts_are_never_markup_nor_control() -> None:
    rows = [
        unit_states.unit(
            0, s=-1e-5, r=-1e-5, prompt="[red]a[/]\n\x1b[31m漢字漢字漢字漢字漢字漢字漢字漢字漢字"
        )
    ]
    app = app_of(final(rows))
    async with app.run_test(size=SIZE) as pilot:
        await pilot.pause()
        lines = drawn(app)
        (line,) = [line for line in lines if "[red]a[/] ␛[31m" in line]
        assert "\x1b" not in "".join(lines)
        assert cell_len(line) == SIZE[0]
