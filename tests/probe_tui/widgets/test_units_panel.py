"""The tab Units: histograms that grow, a range of values, and the units in it."""

from __future__ import annotations

import pytest
import unit_states
from rich.cells import cell_len
from unit_states import Host, so_far, state_of
from units_tab import (
    ROWS,
    SIZE,
    SIZES,
    app_of,
    by_size,
    caption,
    drawn,
    final,
    moved,
    rows_of,
    show,
    table,
    view,
    words,
)

from probe_engine.events import Contributions, Failed, HistogramEvent
from probe_engine.report import Histograms, RunInfo
from probe_tui.state import ScreenState
from probe_tui.widgets.units import UnitsPanel

pytestmark = pytest.mark.asyncio


async def test_histograms_and_table_grow_with_the_measurement() -> None:
    app = app_of(state_of(*so_far(ROWS[:4])))
    async with app.run_test(size=SIZE) as pilot:
        await pilot.pause()
        assert view(app, "r").drawing.histogram == unit_states.histograms(ROWS[:4]).r
        assert "−η·r_n over all, so far" in "\n".join(drawn(app))
        assert caption(app).startswith("so far, 4 of 4 units")
        assert table(app).ids == by_size(ROWS[:4])

        await show(app, pilot, state_of(*so_far(ROWS), after=app.state))
        assert view(app, "s").drawing.histogram == unit_states.histograms(ROWS).s
        assert view(app, "s").drawing.axis == view(app, "r").drawing.axis
        assert table(app).ids == by_size(ROWS)

        await show(app, pilot, final(ROWS))
        assert "so far" not in "\n".join(drawn(app))
        assert caption(app).startswith("12 units")


async def test_keys_choose_a_range_and_escape_gives_it_up() -> None:
    app = app_of(final(ROWS))
    async with app.run_test(size=SIZE) as pilot:
        await pilot.press("tab", "tab")
        assert app.focused is view(app, "r")
        edges = unit_states.histograms(ROWS).r
        assert edges is not None
        width = edges.edges[1] - edges.edges[0]

        await pilot.press("left")
        inside = [u.id for u in ROWS if -width <= (u.contribution_r or 0) < 0]
        assert set(table(app).ids) == set(inside)
        assert caption(app).startswith(f"{len(inside)} of 12 units with −η·r_n")

        await pilot.press("shift+left", "shift+left")
        inside = [u.id for u in ROWS if -3 * width <= (u.contribution_r or 0) < 0]
        assert set(table(app).ids) == set(inside)
        await pilot.press("shift+right", "shift+right", "shift+right")
        assert view(app, "r").bins == (3, 4)

        await pilot.press("escape")
        assert view(app, "r").bins is None
        assert table(app).ids == by_size(ROWS)


async def test_at_the_ends_the_range_stays_inside() -> None:
    app = app_of(final(ROWS))
    async with app.run_test(size=SIZE) as pilot:
        await pilot.press("tab", *["right"] * 6)
        assert view(app, "s").bins == (7, 7)
        for _ in range(9):
            view(app, "s").action_move(-1)
        assert view(app, "s").bins == (0, 0)
        await pilot.press(*["shift+right"] * 9)
        assert view(app, "s").bins == (0, 7)


async def test_one_range_at_a_time() -> None:
    app = app_of(final(ROWS))
    async with app.run_test(size=SIZE) as pilot:
        await pilot.press("tab", "left", "tab", "right")
        assert view(app, "s").bins is None
        assert view(app, "r").bins == (4, 4)


async def test_without_a_range_escape_is_for_the_screen_behind() -> None:
    class Escaped(Host):
        escaped = 0

        def key_escape(self) -> None:
            self.escaped += 1

    app = Escaped(UnitsPanel(), final(ROWS))
    async with app.run_test(size=SIZE) as pilot:
        await pilot.press("tab", "left", "escape")
        assert app.escaped == 0
        await pilot.press("escape")
        assert app.escaped == 1


async def test_the_mouse_chooses_a_range_by_dragging() -> None:
    app = app_of(final(ROWS))
    async with app.run_test(size=SIZE) as pilot:
        await pilot.pause()
        left, plot = (
            view(app, "s"),
            view(app, "s").size.width - 6,
        )  # its values reach farther: the axis is its own

        def over(bin: int) -> tuple[int, int]:
            return 6 + plot * (2 * bin + 1) // 16, 3

        await pilot.mouse_down(left, offset=over(0))
        assert left.bins == (0, 0)
        await pilot.hover(left, offset=over(2))
        await pilot.mouse_up(left, offset=over(2))
        assert left.bins == (0, 2)
        await pilot.hover(left, offset=over(5))
        assert left.bins == (0, 2), "the button is up"

        await pilot.mouse_down(left, offset=over(4))
        await pilot.hover(app.panel, offset=(SIZE[0] - 1, 1))
        assert left.bins == (4, 7), "a pointer that has left the plot chooses its end"
        await pilot.mouse_up(app.panel, offset=(SIZE[0] - 1, 1))

        right = view(app, "r")
        await pilot.click(right, offset=(7, 3))
        assert right.bins == (0, 0), "left of its bars the first is the nearest"
        assert left.bins is None
        await pilot.click(right, offset=(1, 3))
        assert right.bins is None
        assert len(table(app).ids) == 12


async def test_updates_keep_cursor_scroll_and_range() -> None:
    rows = unit_states.units(60)
    app = app_of(state_of(*so_far(rows[:50])))
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press(*["down"] * 20)
        shown = table(app)
        chosen = shown.selected
        assert shown.scroll_y > 0
        for seed, known in enumerate((50, 55, 60, 60)):
            on_screen = shown.cursor_row - shown.scroll_y
            await show(app, pilot, state_of(*so_far(moved(rows[:known], seed)), after=app.state))
            await pilot.pause()
            assert shown.selected == chosen
            expected = min(max(shown.cursor_row - on_screen, 0), shown.max_scroll_y)
            assert shown.scroll_y == expected

        await pilot.press("tab", "left", "shift+left", "shift+left")
        before = view(app, "s").chosen
        assert before is not None
        await show(app, pilot, state_of(*so_far(rows, bins=10), after=app.state))
        after = view(app, "s").chosen
        assert after is not None
        step = 2 * max(abs(before.lo), abs(after.lo)) / 3
        assert after.hi == before.hi == 0
        assert abs(after.lo - before.lo) < step
        assert set(shown.ids) == {
            u.id for u in rows if u.contribution_s is not None and u.contribution_s in after
        }


async def test_paths_and_copies_are_those_of_what_has_the_keys() -> None:
    app = app_of(final(ROWS))
    async with app.run_test(size=SIZE) as pilot:
        await pilot.pause()
        largest = by_size(ROWS)[0]
        assert app.panel.json_path() == f'.units[] | select(.id=="{largest}") | .contribution_r'
        assert app.panel.copy_text().startswith(f"prompt {largest}  in ")
        await pilot.press("s", "s")
        assert app.panel.json_path().endswith("| .contribution_s")
        await pilot.press("tab")
        assert app.panel.json_path() == ".histograms.s"
        await pilot.press("tab")
        assert app.panel.json_path() == ".histograms.r"
        lines = app.panel.copy_text().splitlines()
        assert lines[0] == "from\tto\tcount"
        assert [line.split("\t")[0] for line in lines[-3:]] == ["nan", "underflow", "overflow"]
        assert sum(int(line.split("\t")[2]) for line in lines[1:9]) == 12
        await pilot.press("right")
        assert len(app.panel.copy_text().splitlines()) == 2


@pytest.mark.parametrize("size", [(80, 17), (90, 34), (170, 50)])
async def test_the_caption_names_the_keys_of_what_has_them(size: tuple[int, int]) -> None:
    app = app_of(final(ROWS))
    async with app.run_test(size=size) as pilot:
        await pilot.pause()
        assert caption(app).endswith("⇧tab histograms")
        await pilot.press("tab")
        assert caption(app).endswith("l log")
        await pilot.press("left")
        assert "esc clears" in caption(app)


async def test_where_rows_are_few_histograms_share_them() -> None:
    app = app_of(final(ROWS))
    async with app.run_test(size=(80, 17)) as pilot:
        await pilot.pause()
        assert view(app, "s").region.y == view(app, "r").region.y
        bars = [line for line in drawn(app)[1 : view(app, "s").region.bottom] if "█" in line]
        assert len(bars) >= 3


async def test_log_counts_by_key_and_by_mouse() -> None:
    app = app_of(final(ROWS))
    async with app.run_test(size=SIZE) as pilot:
        await pilot.press("l")
        assert "log counts" in drawn(app)[0]
        await pilot.click(view(app, "r"), offset=(3, 0))
        assert "log counts" not in drawn(app)[0]
        assert view(app, "r").bins is None


async def test_what_is_no_number_is_counted() -> None:
    counted = unit_states.counted([1e-5, -1e-5], nan=3)
    said = HistogramEvent(histograms=Histograms(s=counted, r=counted))
    app = app_of(state_of(said, after=final(ROWS)))
    async with app.run_test(size=SIZE) as pilot:
        await pilot.pause()
        assert "3 NaN" in "\n".join(drawn(app))


@pytest.mark.parametrize("size", SIZES)
async def test_at_every_size_nothing_is_cut(size: tuple[int, int]) -> None:
    rows = [unit_states.unit(n, s=-1.2345e-5 * n, r=-1.2345e-5 * n) for n in range(1, 200)]
    state = state_of(*so_far(rows, bins=24))
    app = app_of(state)
    async with app.run_test(size=size) as pilot:
        await pilot.press("tab", "tab", "left", "left", "left", "shift+left")
        lines = drawn(app)
        assert max(cell_len(line) for line in lines) <= size[0]
        # A prompt may be cut, and a range is written with one.
        top = "\n".join(lines[: table(app).region.y]).replace(" … ", " ")
        assert "…" not in top
        assert 0 < len(table(app).ids) < len(rows)
        header = lines[table(app).region.y].split()
        assert header[:2] == ["−η·r_n", "▾"]
        assert header[-1] == "prompt"
        assert table(app).virtual_size.width <= size[0]
        assert view(app, "r").region.bottom <= table(app).region.y


async def test_resizing_keeps_what_was_chosen() -> None:
    app = app_of(final(unit_states.units(60)))
    async with app.run_test(size=(120, 34)) as pilot:
        await pilot.press("down", "down", "s", "tab", "left", "shift+left")
        bins, ids, selected = view(app, "s").bins, table(app).ids, table(app).selected
        for size in ((60, 14), (200, 60), (120, 34)):
            await pilot.resize_terminal(*size)
            await pilot.pause()
            assert view(app, "s").bins == bins
            assert table(app).ids == ids
            assert table(app).selected == selected


async def test_no_panel_is_empty_without_its_reason() -> None:
    app = app_of(ScreenState())
    async with app.run_test(size=(60, 13)) as pilot:
        await pilot.pause()
        assert "press n to run the next stage" in words(app)
        failed = state_of(Failed(message="killed", remedy="", run=RunInfo()))
        await show(app, pilot, failed)
        assert "the run ended before measure had a result" in words(app)

        first_pass = state_of(unit_states.method(kept=False), so_far(ROWS)[0])
        await show(app, pilot, first_pass)
        assert "comes with the second pass over the units" in words(app)
        assert set(table(app).ids) == {u.id for u in ROWS}
        assert {line.split()[0] for line in rows_of(app)[: len(ROWS)] if line.strip()} == {"—"}

        only_u = Contributions(ids=["u1", "u3"], s=[None, None], r=[1e-5, 2e-5])
        counted = unit_states.counted([1e-5, 2e-5])
        await show(
            app, pilot, state_of(only_u, HistogramEvent(histograms=Histograms(r=counted)), after=first_pass)
        )
        assert "no unit of E is measured yet" in words(app)


async def test_a_new_run_begins_empty() -> None:
    app = app_of(final(ROWS))
    async with app.run_test(size=SIZE) as pilot:
        await pilot.press("down", "down")
        await show(app, pilot, ScreenState())
        assert not table(app).display
        await show(app, pilot, state_of(*so_far(ROWS[:2])))
        assert table(app).display
        assert set(table(app).ids) == {"u0", "u1"}
