"""Faults as one sees them: the cause on top, what to do about it in sight and at hand."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
from pictures import RECORDINGS, TABS, Picture, copied, replayed, settled, size_name
from textual.widgets import OptionList

from probe_engine.events import FindingEvent
from probe_engine.report import Finding, finding
from probe_engine.sources.run_folder import read_events
from probe_tui.app import ProbeApp
from probe_tui.screens.explain import ExplainScreen
from probe_tui.state import ScreenState, fold
from probe_tui.widgets.checks import ChecksPanel
from probe_tui.widgets.panel_tabs import PanelTabs

pytestmark = pytest.mark.asyncio
WHOLE = ((80, 24), (120, 40))
"""Sizes at which nothing may be missing."""


@dataclass(frozen=True)
class Fault:
    """What a recorded fault has to show."""

    code: str
    """Of its cause."""
    counted: str
    """In the title of the tab Checks."""
    mends: str
    """What `y` copies."""


FAULTS = {
    "frozen-adapter": Fault("PEFT001", "✗1", "PeftModel.from_pretrained(base, path, is_trainable=True)"),
    "detached-module": Fault(
        "GRAD013", "✗1 !1", "Look into the forward of the module that is named for detach()"
    ),
    "no-optimizer": Fault("OPT001", "!1", "ls run/checkpoint-2/optimizer.pt"),
    "lr-zero": Fault("OPT007", "!1", "probe-tui CHECKPOINT --lr 1e-6"),
    "stale-rollouts": Fault("ROLL017", "!2", "GRPOConfig(log_completions=True, logging_steps=1)"),
    "tiny-ess": Fault("STAT001", "✗1 !1", "probe-tui CHECKPOINT --lr 0.09"),
    "cut-weights": Fault("CKPT002", "✗1", "ls -l run/checkpoint-2\nsha256sum run/checkpoint-2/*.safetensors"),
}


def cause_of(name: str) -> Finding:
    """The recorded finding itself."""
    codes = (e.finding for e in read_events(RECORDINGS / name) if isinstance(e, FindingEvent))
    return next(f for f in codes if f.code == FAULTS[name].code and f.status in ("warn", "fail", "crash"))


def heading(rows: list[str]) -> int:
    """Where the list of what needs attention begins."""
    return next(at for at, row in enumerate(rows) if row.startswith("NEEDS ATTENTION: "))


def part(picture: Picture, kind: str) -> list[str]:
    """The rows of a widget."""
    leaf = next(leaf for leaf in picture.leaves if leaf.kind == kind)
    return [row.rstrip() for row in picture.within(leaf.region)]


def in_words(rows: list[str]) -> str:
    """Without the line breaks, which depend on the width."""
    return " ".join(" ".join(rows).split())


@pytest.mark.parametrize("size", WHOLE, ids=size_name)
@pytest.mark.parametrize("name", FAULTS)
async def test_the_cause_is_the_first_thing_that_one_sees(name: str, size: tuple[int, int]) -> None:
    fault, cause = FAULTS[name], cause_of(name)
    async with replayed(RECORDINGS / name).run_test(size=size) as pilot:
        seen = await settled(pilot)
    rows = part(seen, "OptionList")
    answer, (first, *_) = rows[: heading(rows)], rows[heading(rows) + 1 :]
    assert "radient" in answer[0]
    assert (fault.code in in_words(answer)) == (not answer[0].startswith("✓"))
    assert first.split()[1:3] == [cause.status, fault.code]
    title, *said = part(seen, "Page")
    assert title.split()[1:3] == [cause.status, fault.code]
    assert in_words(said).startswith(in_words([cause.message])), "the message comes first"
    assert in_words([cause.remedy.text])[:40] in in_words(said), "the remedy begins in sight"
    titles = next(row for row in seen.rows if "Influence" in row)
    assert f"Checks {fault.counted}  Units" in titles


@pytest.mark.parametrize("name", FAULTS)
async def test_its_whole_remedy_is_in_sight_at_the_design_size(name: str) -> None:
    remedy = cause_of(name).remedy
    async with replayed(RECORDINGS / name).run_test(size=(120, 40)) as pilot:
        said = in_words(part(await settled(pilot), "Page"))
    assert in_words([remedy.text]) in said
    for command in remedy.commands:
        assert f"$ {command}" in said


@pytest.mark.parametrize("name", FAULTS)
async def test_y_copies_what_mends_it(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[str] = []
    monkeypatch.setattr(ProbeApp, "copy_to_clipboard", lambda _, text: taken.append(text))
    run = copied(name, tmp_path)
    async with replayed(run).run_test(size=(80, 24)) as pilot:
        await settled(pilot)
        await pilot.press("y")
    assert len(taken) == 1
    assert taken[0].startswith(FAULTS[name].mends)
    assert (run / "clipboard.txt").read_text("utf-8") == taken[0]


@pytest.mark.parametrize("name", FAULTS)
async def test_e_opens_its_page(name: str) -> None:
    app = replayed(RECORDINGS / name)
    async with app.run_test(size=(80, 24)) as pilot:
        await settled(pilot)
        await pilot.press("e")
        assert isinstance(app.screen, ExplainScreen)
        page = part(await settled(pilot), "Page")
    assert page[0].startswith(f"{FAULTS[name].code}  ")


@pytest.mark.parametrize("name", FAULTS)
async def test_the_filter_finds_it(name: str) -> None:
    code = FAULTS[name].code
    app = replayed(RECORDINGS / name)
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("slash", *code.lower(), "enter")
        rows = part(await settled(pilot), "OptionList")
    findings = [row for row in rows if row and not row.isupper()]
    assert findings[0].split()[2] == code
    assert all(code in row for row in findings)


async def test_without_gradient_the_other_tabs_say_why_they_are_empty_and_where_to_look() -> None:
    app = replayed(RECORDINGS / "frozen-adapter")
    async with app.run_test(size=(80, 24)) as pilot:
        for tab in TABS[1:5]:
            app.action_tab(tab.lower())
            said = (await settled(pilot)).words
            assert "the run ended before" in said, tab
            assert "gradient does not flow" in said, tab
            assert "The tab Checks says why and what to do: press 1." in said, tab
        await pilot.press("1")
        assert app.query_one(PanelTabs).active == "checks"


async def test_a_number_that_failed_checks_stand_behind_says_so_on_every_tab() -> None:
    """What was measured of a cut graph looks like any other measurement."""
    app = replayed(RECORDINGS / "detached-module")
    async with app.run_test(size=(120, 40)) as pilot:
        for tab in TABS:
            app.action_tab(tab.lower())
            sidebar = part(await settled(pilot), "Sidebar")
            assert any(row.startswith("δH₁") for row in sidebar)
            assert "✗ 1 failed: see Checks" in sidebar


async def test_what_is_worse_stands_above_what_came_first() -> None:
    app = replayed(RECORDINGS / "no-optimizer")
    async with app.run_test(size=(120, 40)) as pilot:
        await settled(pilot)
        app.state = with_findings(
            app.state,
            finding("STAT001", "fail", "few responses carry the change"),
            finding("RUN001", "crash", "the engine died"),
            finding("GRAD011", "fail", "a gradient is not finite"),
        )
        app.show()
        rows = part(await settled(pilot), "OptionList")
    assert rows[heading(rows)] == "NEEDS ATTENTION: 3 FAIL, 1 WARN, 5 INFO BELOW"
    top = rows[heading(rows) + 1 : rows.index("GOOD TO KNOW: 5 INFO")]
    assert [row.split()[1:3] for row in top] == [
        ["crash", "RUN001"],
        ["fail", "GRAD011"],
        ["fail", "STAT001"],
        ["warn", "OPT001"],
    ]


async def test_the_cursor_stays_on_the_cause_while_findings_come_in_and_where_one_moved_it() -> None:
    app = replayed(RECORDINGS / "healthy", 20)
    async with app.run_test(size=(120, 40)) as pilot:
        await settled(pilot)
        panel = app.query_one(ChecksPanel)
        for code, status in (("OPT004", "warn"), ("OPT003", "fail")):
            app.state = with_findings(app.state, finding(code, status, "as injected"))
            app.show()
            await settled(pilot)
            assert panel.selected is not None
            assert panel.selected.code == code
        await pilot.press("down")
        chosen = panel.selected
        assert chosen is not None
        assert chosen.code == "OPT004"
        app.state = with_findings(app.state, finding("RUN001", "crash", "as injected"))
        app.show()
        await settled(pilot)
        assert panel.selected == chosen
        assert panel.query_one(OptionList).highlighted == 3


def with_findings(state: ScreenState, *found: Finding) -> ScreenState:
    for one in found:
        state = fold(state, FindingEvent(finding=one, time=state.time))
    return state
