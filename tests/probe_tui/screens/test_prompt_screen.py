"""The prompt screen: one unit in full."""

from __future__ import annotations

import json

import msgspec
import pytest
import unit_states
from rich.cells import cell_len
from textual.app import App
from textual.containers import VerticalScroll

from probe_engine.report import ResponseRow, UnitRow
from probe_tui.screens.prompt import Prompts, PromptScreen, dots, unit_path, unit_text
from probe_tui.widgets.page import Page

UNITS = unit_states.units(3)
LONG = unit_states.unit(7, prompt="[b]not bold[/b]\n\x1b[2Jcontrol\tand 漢字 " + "many words " * 400)


class Behind(App[None]):
    """An app that opens the screen, and remembers what came back."""

    came_back: str | None = None
    took = ""

    def open(self, units: list[UnitRow], at: int = 0, note: str = "") -> None:
        def back(id: str | None) -> None:
            self.came_back = id

        PromptScreen.open(self, Prompts(units, at, nats="nats/slot", note=note), back)

    def action_copy(self) -> None:
        self.took = "copy"

    def action_command(self) -> None:
        self.took = "command"

    @property
    def prompt(self) -> PromptScreen:
        assert isinstance(self.screen, PromptScreen)
        return self.screen

    @property
    def said(self) -> str:
        return str(self.prompt.query_one("#detail", Page).render())


def test_the_path_holds_any_id() -> None:
    assert unit_path("a1") == '.units[] | select(.id=="a1")'
    (quoted,) = unit_path('say "hi"\\').removeprefix(".units[] | select(.id==").rsplit(")", 1)[:1]
    assert json.loads(quoted) == 'say "hi"\\'


def test_dot_products_carry_no_learning_rate() -> None:
    measured = msgspec.structs.replace(UNITS[0], s=-1.25, r=0.5)
    assert dots(measured) == "without η: s -1.25 · t — · r 0.5"


def test_a_copied_unit_has_all_its_numbers_and_unbroken_lines() -> None:
    copied = unit_text(LONG, nats="nats/slot")
    assert "many words " * 399 + "many words" in copied
    for words in (
        "in U",
        "2 responses, 13 tokens",
        "‖X‖ 8",
        "S -6 nats",
        "weight c -0.25",
        "right 7",
        "cut off",
    ):
        assert words in copied
    assert "\x1b" not in copied
    assert copied.endswith("without η: s — · t — · r —")


@pytest.mark.asyncio
async def test_it_shows_the_prompt_the_numbers_and_every_response() -> None:
    app = Behind()
    async with app.run_test(size=(80, 24)) as pilot:
        app.open(UNITS, at=2, note="so far")
        await pilot.pause()
        box = app.prompt.query_one(VerticalScroll)
        assert box.border_title == "unit 3 of 3, so far"
        for words in (
            UNITS[2].prompt,
            "−η·r_n",
            "+η·s_n",
            "nats/slot: entropy",
            "‖X‖ 3 · ‖Y‖ 2 · ‖PY‖ 3 · X·PY 0.5",
            "response 1 of 2",
            "reward 1 · advantage 0.5 · S -6 nats · weight c 0.25 · 4 tokens, terminated",
            "right 2",
            "response 2 of 2",
        ):
            assert words in app.said


@pytest.mark.asyncio
async def test_arrows_go_round_and_escape_tells_where_one_was() -> None:
    app = Behind()
    async with app.run_test(size=(80, 24)) as pilot:
        app.open(UNITS)
        await pilot.press("right", "right")
        assert app.prompt.unit.id == "u2"
        assert UNITS[2].prompt in app.said
        await pilot.press("right")
        assert app.prompt.unit.id == "u0"
        await pilot.press("left")
        assert app.prompt.unit.id == "u2"
        await pilot.press("escape")
        assert app.came_back == "u2"
        assert not isinstance(app.screen, PromptScreen)


@pytest.mark.asyncio
async def test_a_long_unit_scrolls_and_its_neighbour_begins_at_the_top() -> None:
    app = Behind()
    async with app.run_test(size=(60, 20)) as pilot:
        app.open([LONG, *UNITS])
        await pilot.press("down", "down", "pagedown")
        box = app.prompt.query_one(VerticalScroll)
        assert box.scroll_y > 2
        await pilot.press("end")
        assert box.scroll_y == box.max_scroll_y
        await pilot.press("right", "left")
        await pilot.pause()
        assert box.scroll_y == 0


@pytest.mark.asyncio
async def test_keys_that_take_are_those_of_the_app() -> None:
    app = Behind()
    async with app.run_test(size=(80, 24)) as pilot:
        app.open(UNITS)
        await pilot.press("y")
        assert app.took == "copy"
        await pilot.press("c")
        assert app.took == "command"


@pytest.mark.asyncio
async def test_the_mouse_presses_the_keys_in_the_border() -> None:
    app = Behind()
    async with app.run_test(size=(80, 24)) as pilot:
        app.open(UNITS)
        await pilot.pause()
        strips = app.screen._compositor.render_strips()
        border = "".join(segment.text for segment in strips[23])
        for words, id in (("after", "u1"), ("after", "u2"), ("before", "u1")):
            await pilot.click(offset=(border.index(words) + 1, 23))
            assert app.prompt.unit.id == id
        await pilot.click(offset=(border.index("copy") + 1, 23))
        assert app.took == "copy"
        await pilot.click(offset=(border.index("close") + 1, 23))
        assert app.came_back == "u1"


@pytest.mark.asyncio
@pytest.mark.parametrize("size", [(60, 20), (80, 24), (120, 40), (200, 60)])
async def test_at_every_size_lines_wrap_and_nothing_is_lost(size: tuple[int, int]) -> None:
    response = ResponseRow(text="", length=0, terminated=True, reward=None, advantage=None, S=None, c=None)
    unit = msgspec.structs.replace(LONG, responses=[*LONG.responses, response])
    app = Behind()
    async with app.run_test(size=size) as pilot:
        app.open([unit])
        await pilot.pause()
        lines = app.said.split("\n")
        box = app.prompt.query_one(VerticalScroll)
        assert max(cell_len(line) for line in lines) <= box.scrollable_content_region.width <= size[0] - 4
        assert " ".join(app.said.split()).count("many words") == 400
        assert "[b]not bold[/b]" in app.said
        assert "␛[2Jcontrol" in app.said
        assert "…" not in app.said
        assert "reward — · advantage — · S — nats" in app.said
        await pilot.resize_terminal(size[0] + 7, size[1])
        await pilot.pause()
        wider = max(cell_len(line) for line in app.said.split("\n"))
        assert wider <= box.scrollable_content_region.width
        assert " ".join(app.said.split()).count("many words") == 400


@pytest.mark.asyncio
async def test_opened_again_it_is_the_same_screen_and_begins_anew() -> None:
    app = Behind()
    async with app.run_test(size=(60, 20)) as pilot:
        app.open([LONG, *UNITS])
        await pilot.press("end")
        first = app.prompt
        await pilot.press("escape")
        assert app.came_back == LONG.id
        app.open(UNITS, at=1)
        await pilot.pause()
        assert app.prompt is first
        assert app.prompt.query_one(VerticalScroll).scroll_y == 0
        assert UNITS[1].prompt in app.said
        await pilot.press("escape")
        assert app.came_back == UNITS[1].id
