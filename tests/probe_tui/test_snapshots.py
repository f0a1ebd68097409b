"""What every view looks like at every size, row by row; and what must hold of any picture.

`UPDATE_SNAPSHOTS=1 pytest tests/probe_tui/test_snapshots.py` writes snapshots/*.txt anew: look at their diff.
"""

from __future__ import annotations

import asyncio
import difflib
import os
import re
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import combinations
from pathlib import Path

import pytest
from pictures import RECORDINGS, SIZES, TABS, Picture, replayed, settled, size_name
from rich.color_triplet import ColorTriplet

from probe_engine.sources.run_folder import read_spec
from probe_tui.palettes import THEMES
from probe_tui.renderables.palette import COLOURBLIND
from probe_tui.screens.leave import LeaveScreen, ways
from probe_tui.screens.options import OptionsScreen

SNAPSHOTS = Path(__file__).parent / "snapshots"
HEALTHY = RECORDINGS / "healthy"
KEYS = {
    **{tab.lower(): str(number) for number, tab in enumerate(TABS, 1)},
    "help": "1 question_mark",
    "explain": "1 e",
    "prompt": "2 enter",
}
SCREENS = {
    "options": lambda: OptionsScreen(read_spec(HEALTHY)),
    "leave": lambda: LeaveScreen(ways("runs/20251120T070000Z-checkpoint-30", own=True, waits=False)),
}
VIEWS = (*KEYS, *SCREENS)
ENORMOUS = (240, 140)
"""A size at which no view cuts or wraps anything."""

AT_WORK = 90
"""Events after which the healthy run measures: the histograms have grown half way."""
MOMENTS = {
    "before any event": ("healthy", 0),
    "loading": ("healthy", 20),
    "at work": ("healthy", AT_WORK),
    "stopped early": ("cut-weights", None),
    "no gradient": ("frozen-adapter", None),
    "through": ("healthy", None),
}


@cache
def views(size: tuple[int, int]) -> dict[str, Picture]:
    """Every view of the finished run."""

    async def look_at_all() -> dict[str, Picture]:
        app = replayed(HEALTHY)
        seen = {}
        async with app.run_test(size=size) as pilot:
            for name in VIEWS:
                if name in KEYS:
                    await pilot.press(*KEYS[name].split())
                else:
                    app.push_screen(SCREENS[name]())
                seen[name] = await settled(pilot)
                if len(app.screen_stack) > 1:
                    await pilot.press("escape")
        return seen

    return asyncio.run(look_at_all())


@cache
def tabs(moment: str, size: tuple[int, int]) -> dict[str, Picture]:
    """Every tab at a moment of a run."""
    return asyncio.run(look(moment, size, TABS))


async def look(
    moment: str, size: tuple[int, int], names: Sequence[str], theme: str = ""
) -> dict[str, Picture]:
    """Some tabs at a moment of a run."""
    app = replayed(RECORDINGS / MOMENTS[moment][0], MOMENTS[moment][1])
    seen = {}
    async with app.run_test(size=size) as pilot:
        app.theme = theme or app.theme
        for name in names:
            app.action_tab(name.lower())
            seen[name] = await settled(pilot)
    return seen


def each_picture() -> Iterator[tuple[str, Picture]]:
    """All that the tests below look at, with a name."""
    for size in SIZES:
        for name, picture in views(size).items():
            yield f"{name} at {size_name(size)}", picture
        for moment in MOMENTS:
            for tab, picture in tabs(moment, size).items():
                yield f"{tab} {moment} at {size_name(size)}", picture


# Row by row


@pytest.mark.parametrize("size", SIZES, ids=size_name)
@pytest.mark.parametrize("view", VIEWS)
def test_a_view_looks_as_it_did(view: str, size: tuple[int, int]) -> None:
    compare(f"{view}-{size_name(size)}", views(size)[view])


@pytest.mark.parametrize("size", SIZES, ids=size_name)
def test_the_histograms_half_way_look_as_they_did(size: tuple[int, int]) -> None:
    compare(f"units-at-work-{size_name(size)}", tabs("at work", size)["Units"])


def compare(name: str, picture: Picture) -> None:
    path = SNAPSHOTS / f"{name}.txt"
    if os.environ.get("UPDATE_SNAPSHOTS"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(picture.text, "utf-8")
    before = path.read_text("utf-8").splitlines()
    changed = list(difflib.unified_diff(before, picture.rows, "as it was", "as it is", lineterm="", n=1))
    assert not changed, "\n".join(["", *changed])


def test_no_snapshot_is_of_something_that_is_gone() -> None:
    names = {f"{view}-{size_name(size)}" for view in (*VIEWS, "units-at-work") for size in SIZES}
    assert {path.stem for path in SNAPSHOTS.iterdir()} == names


# Of any picture


def test_every_row_is_as_wide_as_the_screen_and_nothing_lies_beyond_it() -> None:
    for name, picture in each_picture():
        assert {strip.cell_length for strip in picture.strips} == {int(name.rpartition(" ")[2].split("x")[0])}
        assert [leaf for leaf in picture.leaves if leaf.hidden] == [], name


def test_no_two_widgets_draw_on_the_same_cells() -> None:
    # The prompt's last line stays in sight: the page scrolls under it.
    docked = {"dots", "detail"}
    for name, picture in each_picture():
        for one, other in combinations(picture.leaves, 2):
            if {one.id, other.id} != docked:
                assert not one.region.overlaps(other.region), f"{name}: {one} {other}"


def test_every_tab_s_title_can_be_read_with_its_count() -> None:
    for moment in MOMENTS:
        whole = titles(tabs(moment, ENORMOUS)["Checks"])
        assert [title.split()[0] for title in whole] == list(TABS)
        for size in SIZES:
            for tab, picture in tabs(moment, size).items():
                assert titles(picture) == whole, (moment, size, tab)


def titles(picture: Picture) -> list[str]:
    tabs = sorted((leaf for leaf in picture.leaves if leaf.kind == "Tab"), key=lambda leaf: leaf.region.x)
    return [picture.within(leaf.region)[0] for leaf in tabs]


@pytest.mark.parametrize("size", SIZES, ids=size_name)
def test_no_word_is_cut_at_a_right_edge_without_an_ellipsis(size: tuple[int, int]) -> None:
    """What stands at a widget's right edge is a word that stands somewhere with room around it, too."""
    seen = [(name, picture, views(ENORMOUS)[name]) for name, picture in views(size).items()]
    seen += [
        (f"{tab} {moment}", picture, tabs(moment, ENORMOUS)[tab])
        for moment in MOMENTS
        for tab, picture in tabs(moment, size).items()
    ]
    for name, picture, roomy in seen:
        whole = {*WORD.findall(roomy.text.casefold()), *words_inside(picture)}
        for row, word in words_at_right_edges(picture):
            assert word in whole, f"{name}: {word!r} of {row!r}"


WORD = re.compile(r"\w+")


def words_at_right_edges(picture: Picture) -> Iterator[tuple[str, str]]:
    """Words in which a widget's rows end at its last column or beside it, each with its row."""
    for leaf in picture.leaves:
        for row in picture.within(leaf.region):
            if found := re.search(r"(\w+)\s?$", row):
                yield row, found[1].casefold()


def words_inside(picture: Picture) -> set[str]:
    """Words that no edge can have cut: others follow them."""
    rows = (row for leaf in picture.leaves for row in picture.within(leaf.region))
    return {word for row in rows for word in WORD.findall(row.casefold())[:-1]}


REASON = re.compile(
    "Comes with the stage [a-z]+(: press n|; [a-z]+ is at work)"
    "|Nothing here: the run ended before [a-z]+ had a result: .+ press 1"
    "|No engine log here: "
)


FRAME = ("Header", "Sidebar", "Tab", "Underline", "KeyLine")
FILLED = {"before any event": (), "at work": ("Checks", "Units")}
"""Tabs that have something to show at that moment; else the Checks alone."""


@pytest.mark.parametrize("size", SIZES, ids=size_name)
@pytest.mark.parametrize("moment", [moment for moment in MOMENTS if moment != "through"])
def test_no_tab_is_empty_without_its_reason(moment: str, size: tuple[int, int]) -> None:
    for tab, picture in tabs(moment, size).items():
        body = [
            row for leaf in picture.leaves if leaf.kind not in FRAME for row in picture.within(leaf.region)
        ]
        said = REASON.search(" ".join(" ".join(body).split()))
        assert (said is None) == (tab in FILLED.get(moment, ("Checks",))), (tab, picture.text)


@pytest.mark.asyncio
async def test_a_filter_that_finds_nothing_says_so() -> None:
    app = replayed(HEALTHY)
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("slash", *"nowhere", "enter")
        assert "No finding holds “nowhere”." in (await settled(pilot)).words


# Colours


COLOURFUL = {"no gradient": "Checks", "at work": "Units", "through": "Realized"}
"""Moments and tabs that show all that is ever coloured: statuses, signs, bars."""


def colourful(theme: str = "") -> list[Picture]:
    """Pictures with many colours in them."""
    return [asyncio.run(look(moment, (80, 24), [tab], theme))[tab] for moment, tab in COLOURFUL.items()]


@pytest.fixture(scope="module")
def dark() -> list[Picture]:
    return colourful("textual-dark")


def colours(pictures: Sequence[Picture]) -> set[tuple[ColorTriplet, ColorTriplet]]:
    """Each text colour with its background; Textual draws with colours of its own, never the terminal's."""
    return {
        (segment.style.color.get_truecolor(), segment.style.bgcolor.get_truecolor())
        for picture in pictures
        for strip in picture.strips
        for segment in strip
        if segment.text.strip() and segment.style and segment.style.color and segment.style.bgcolor
    }


@pytest.mark.parametrize("theme", [theme.name for theme in THEMES if theme.name != "textual-dark"])
def test_a_theme_changes_colours_and_no_character(theme: str, dark: list[Picture]) -> None:
    themed = colourful(theme)
    assert [picture.text for picture in themed] == [picture.text for picture in dark]
    assert colours(themed) != colours(dark)


def test_light_is_light_and_dark_is_dark(dark: list[Picture]) -> None:
    for pictures, is_dark in ((dark, True), (colourful("textual-light"), False)):
        pairs = colours(pictures)
        brighter_text = sum(sum(background) < sum(text) for text, background in pairs)
        # The cursor's row is the other way round.
        assert (brighter_text > len(pairs) / 2) == is_dark


def test_the_colourblind_theme_draws_with_its_own_palette() -> None:
    drawn = {text.hex for text, _ in colours(colourful("probe-colourblind"))}
    assert {style.split()[-1] for style in (COLOURBLIND.falls, COLOURBLIND.rises, COLOURBLIND.fail)} <= drawn


def test_no_color_leaves_greys_and_every_character(
    dark: list[Picture], monkeypatch: pytest.MonkeyPatch
) -> None:
    def grey(pictures: list[Picture]) -> bool:
        return all(len(set(colour)) == 1 for pair in colours(pictures) for colour in pair)

    monkeypatch.setenv("NO_COLOR", "1")
    without = colourful()
    assert [picture.text for picture in without] == [picture.text for picture in dark]
    assert grey(without)
    assert not grey(dark)


def test_without_colour_what_fails_still_stands_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    bold = {
        segment.text.strip(): bool(segment.style.bold)
        for strip in colourful()[0].strips
        for segment in strip
        if segment.style is not None
    }
    assert (bold["✗ fail"], bold["! warn"], bold["✓ ok"]) == (True, True, False)
