"""The app's own keys, on a recording and on a scripted session."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
import tiny
from pictures import settled
from textual.events import Key
from textual.widgets import Input, OptionList

from probe_engine import probe
from probe_engine.control import Break, Continue, Pause, Step
from probe_engine.errors import ProbeError
from probe_engine.events import Paused, StageStarted
from probe_engine.report import finding
from probe_engine.spec import Resolved, resolve
from probe_tui.app import ProbeApp
from probe_tui.feeds import News
from probe_tui.keys import KEYS
from probe_tui.screens.explain import ExplainScreen
from probe_tui.screens.export import export_folder
from probe_tui.screens.help import HelpScreen, shown
from probe_tui.screens.leave import LeaveScreen
from probe_tui.screens.options import OptionsScreen
from probe_tui.session import RUNNING, LiveSession, ReplaySession, Session
from probe_tui.widgets.checks import ChecksPanel
from probe_tui.widgets.page import Page, PageScroll
from probe_tui.widgets.panel import Panel
from probe_tui.widgets.panel_tabs import PanelTabs
from probe_tui.widgets.realized import RealizedPanel
from probe_tui.widgets.realized_lines import TAKEN

pytestmark = pytest.mark.asyncio


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recorded run of a tiny model."""
    folder = tmp_path_factory.mktemp("recorded") / "run"
    model = tiny.with_lora(tiny.model("llama"))
    probe(model, optimizer=tiny.optimizer(model), batch=tiny.batch(sizes=(3,) * 10), out=folder)
    return folder


@pytest.fixture
def app(run: Path) -> ProbeApp:
    session = ReplaySession(run)
    session.player.to_end()
    return ProbeApp(session)


class Scripted(Session):
    """A session that remembers what it was told."""

    owns_engine = True

    def __init__(self, run: Path, events: list[object]) -> None:
        super().__init__(run)
        self.told: list[object] = []
        self._events = events

    @property
    def commands(self) -> frozenset[str]:
        return RUNNING

    @property
    def resolved(self) -> Resolved:
        return resolve({"checkpoint": "somewhere", "seed": 3})

    def poll(self) -> News:
        fresh, self._events = self._events, []
        return News(fresh)  # type: ignore[arg-type]

    def next_stage(self) -> None:
        self.told.append("next")

    def run_all(self) -> None:
        self.told.append("all")

    def toggle(self, *, waits: bool) -> None:
        self.told.append(("toggle", waits))

    def break_on(self, status: str) -> None:
        self.breakpoint = status  # type: ignore[assignment]
        self.told.append(("break", status))

    async def interrupt(self) -> None:
        self.told.append("interrupt")

    async def stop(self) -> None:
        self.told.append("stop")

    def leave_running(self) -> None:
        self.told.append("leave")

    def rerun(self, resolved: Resolved) -> None:
        self.told.append(resolved)


@pytest.fixture
def scripted(tmp_path: Path) -> Scripted:
    return Scripted(tmp_path, [StageStarted(stage="load", time=1.0)])


async def test_keys_reach_the_engine(scripted: Scripted) -> None:
    app = ProbeApp(scripted)
    async with app.run_test() as pilot:
        await pilot.press("n", "a", "p", "b", "b", "b")
        app.state = app.state.__class__(paused=Paused(stage="", reason="pause"))
        await pilot.press("p", "x")
        await pilot.pause()
    assert scripted.told == [
        "next",
        "all",
        ("toggle", False),
        ("break", "fail"),
        ("break", "warn"),
        ("break", "never"),
        ("toggle", True),
        "interrupt",
    ]


async def test_leaving_asks_while_the_engine_works(scripted: Scripted) -> None:
    app = ProbeApp(scripted)
    async with app.run_test() as pilot:
        await pilot.press("ctrl+q")
        assert isinstance(app.screen, LeaveScreen)
        await pilot.press("escape")
        assert scripted.told == []
        assert app.is_running
        await pilot.press("ctrl+q", "l")
        await pilot.pause()
    assert scripted.told == ["leave"]
    assert app.return_value == 0


async def test_leaving_and_stopping_is_an_interruption(scripted: Scripted) -> None:
    app = ProbeApp(scripted)
    async with app.run_test() as pilot:
        await pilot.press("ctrl+q", "s")
        await pilot.pause()
    assert scripted.told == ["stop"]
    assert app.return_value == 130


async def test_a_rerun_takes_the_changed_options_with_their_origin(scripted: Scripted) -> None:
    app = ProbeApp(scripted)
    async with app.run_test(size=(120, 40)) as pilot:
        await pilot.press("r")
        assert isinstance(app.screen, OptionsScreen)
        assert app.focused is app.screen.query_one("#lr", Input)
        await pilot.press(*"1e-5", "enter")
        await pilot.pause()
    (told,) = scripted.told
    assert isinstance(told, Resolved)
    assert (told.spec.lr, told.origins["lr"]) == (1e-5, "screen")
    assert (told.spec.seed, told.origins["seed"]) == (3, "flag")
    assert told.spec.checkpoint == "somewhere"


async def test_an_impossible_option_is_said_and_nothing_is_lost(scripted: Scripted) -> None:
    app = ProbeApp(scripted)
    async with app.run_test(size=(120, 40)) as pilot:
        await pilot.press("r")
        await pilot.press(*"many", "enter")
        await pilot.pause()
        assert isinstance(app.screen, OptionsScreen)
        assert "--lr" in str(app.screen.query_one("#problem").render())
        assert app.screen.query_one("#lr", Input).value == "many"
        assert app.focused is app.screen.query_one("#lr", Input)
        app.screen.query_one("#lr", Input).value = ""
        app.screen.query_one("#split", Input).value = "7"
        await pilot.press("enter")
        await pilot.pause()
        assert app.focused is app.screen.query_one("#split", Input), "the field in error has the keys"
        await pilot.press("escape")
    assert scripted.told == []


async def test_tabs_help_and_explain(app: ProbeApp) -> None:
    async with app.run_test(size=(120, 40)) as pilot:
        await pilot.pause()
        for key, name in (("2", "units"), ("5", "realized"), ("1", "checks")):
            await pilot.press(key)
            assert app.query_one(PanelTabs).active == name
        await pilot.press("question_mark")
        assert isinstance(app.screen, HelpScreen)
        await pilot.press("escape", "e")
        assert isinstance(app.screen, ExplainScreen)


@pytest.mark.parametrize(("opened_by", "height"), [("question_mark", 24), ("e", 14)])
async def test_a_page_higher_than_the_screen_scrolls_to_its_last_line(
    app: ProbeApp, opened_by: str, height: int
) -> None:
    async with app.run_test(size=(80, height)) as pilot:
        await pilot.pause()
        await pilot.press(opened_by)
        await pilot.pause()
        box = app.screen.query_one(PageScroll)
        page = box.query_one(Page)
        assert page.region.bottom > box.content_region.bottom, "it does not fit"
        for key, before in (("pagedown", 0.0), ("down", 1.0), ("j", 2.0)):
            await pilot.press(key)
            await pilot.wait_for_scheduled_animations()
            assert box.scroll_y > before, key
        await pilot.press("end")
        await pilot.wait_for_scheduled_animations()
        assert page.region.bottom == box.content_region.bottom


async def test_the_filter_narrows_the_list_and_escape_clears_it(app: ProbeApp) -> None:
    async with app.run_test(size=(120, 40)) as pilot:
        await pilot.pause()
        everything = app.query_one("ChecksPanel OptionList", OptionList).option_count
        await pilot.press("slash", *"grad007")
        await pilot.pause()
        found = app.query_one(ChecksPanel).selected
        assert found is not None
        assert found.code == "GRAD007"
        await pilot.press("enter")
        assert app.query_one("#filter", Input).has_class("hidden")
        await pilot.press("escape")
        await pilot.pause()
        assert app.query_one("ChecksPanel OptionList", OptionList).option_count == everything


async def test_copy_and_command_write_what_they_copy(
    app: ProbeApp, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied: list[str] = []
    monkeypatch.setattr(ProbeApp, "copy_to_clipboard", lambda _self, text: copied.append(text))
    async with app.run_test(size=(120, 40)) as pilot:
        await pilot.pause()
        await pilot.press("1", "y", "c")
        found = app.query_one(ChecksPanel).selected
    assert found is not None
    assert copied[0] in ("\n".join(found.remedy.commands), found.remedy.text, found.message)
    assert f'select(.code=="{found.code}")' in copied[1]
    assert (run / "clipboard.txt").read_text() == copied[1]


async def test_export_writes_four_files_where_one_is_and_says_where(
    app: ProbeApp, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / f"{run.name}-export"
    copied: list[str] = []
    monkeypatch.setattr(ProbeApp, "copy_to_clipboard", lambda _self, text: copied.append(text))
    left: list[str] = []
    monkeypatch.setattr(ProbeApp, "exit", lambda _self, _code, message: left.append(message))
    async with app.run_test(size=(120, 40)) as pilot:
        await pilot.pause()
        await pilot.press("o")
        assert str(folder)[-40:] in (await settled(pilot)).text
        await pilot.press("escape")
        assert not folder.exists()
        await pilot.press("o", "enter")
        await pilot.pause()
        assert copied == [str(folder)]
        await pilot.press("q")
        await pilot.pause()
    assert f"exported: {folder}\n" in left[0]
    assert "Export" not in (folder / "screen.svg").read_text(), "the screen, not the question"
    assert {p.name for p in folder.iterdir()} == {"report.json", "units.csv", "screen.svg", "report.html"}
    assert json.loads((folder / "report.json").read_text())["verdict"] is not None


async def test_export_goes_to_the_folder_that_is_typed(app: ProbeApp, tmp_path: Path) -> None:
    async with app.run_test(size=(120, 40)) as pilot:
        await pilot.press("o")
        app.screen.query_one(Input).value = str(tmp_path / "chosen")
        await pilot.press("enter")
        await pilot.pause()
    assert (tmp_path / "chosen" / "units.csv").is_file()


async def test_export_goes_to_a_folder_whose_name_is_no_unicode(
    app: ProbeApp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = tmp_path / "odd\udcff"
    odd.mkdir()
    monkeypatch.chdir(odd)
    async with app.run_test(size=(120, 40)) as pilot:
        await pilot.press("o", "enter")
        await pilot.pause()
    assert [path.name for path in odd.iterdir()] == ["run-export"]


async def test_where_nothing_can_be_written_the_run_folder_takes_the_export(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.access", lambda *_: False)
    assert export_folder(tmp_path / "run") == tmp_path / "run" / "export"
    monkeypatch.undo()
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert export_folder(tmp_path / "run") == tmp_path / "run" / "export"


async def test_what_is_typed_at_once_after_a_slash_is_in_the_filter(app: ProbeApp) -> None:
    async with app.run_test(size=(120, 40)) as pilot:
        await pilot.pause()
        for character in "/grad/7":  # as a terminal hands on what came in one piece
            app.post_message(Key("slash" if character == "/" else character, character))
        await settled(pilot)
        assert app.query_one("#filter", Input).value == "grad/7"


async def test_help_is_made_once_a_tab(app: ProbeApp) -> None:
    async with app.run_test(size=(120, 40)) as pilot:
        await pilot.press("question_mark")
        first = app.screen
        await pilot.press("escape", "2", "question_mark")
        assert app.screen is not first
        assert "sort by the next column" in (await settled(pilot)).words
        await pilot.press("escape", "1", "question_mark")
        assert app.screen is first
        assert isinstance(first, HelpScreen)


async def test_the_help_that_is_kept_looks_as_a_new_one_would(run: Path) -> None:
    def ended() -> ProbeApp:
        session = ReplaySession(run)
        session.player.to_end()
        return ProbeApp(session, clock=lambda: 0.0)

    kept, new = ended(), ended()
    async with kept.run_test(size=(120, 40)) as pilot:
        await pilot.press("question_mark", "escape")
        await pilot.resize_terminal(80, 24)
        kept.theme = "textual-light"
        await pilot.press("question_mark")
        seen = await settled(pilot)
    async with new.run_test(size=(80, 24)) as pilot:
        new.theme = "textual-light"
        await pilot.press("question_mark")
        assert seen.strips == (await settled(pilot)).strips


async def test_a_recording_refuses_what_it_cannot_do_and_plays(app: ProbeApp, run: Path) -> None:
    session = app.session
    assert isinstance(session, ReplaySession)
    async with app.run_test(size=(120, 40)) as pilot:
        await pilot.pause()
        whole = app.state.events
        session.player.pause()  # a recording of 0.1 s would play to its end while keys are pressed
        await pilot.press("r", "x", "b")
        assert len(app.screen_stack) == 1
        await pilot.press(*["left_square_bracket"] * 10)
        await settled(pilot)
        assert 0 < app.state.events < whole
        await pilot.press("full_stop")
        assert session.player.speed == 2
        await pilot.press("a")
        assert app.state.events == whole


async def test_themes_go_round(app: ProbeApp) -> None:
    async with app.run_test() as pilot:
        first = app.theme
        seen = set()
        for _ in range(6):
            await pilot.press("t")
            seen.add(app.theme)
        assert app.theme == first
        assert {"probe-colourblind", "probe-mono", "textual-light"} <= seen


async def test_a_live_session_sends_its_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[object] = []
    session = LiveSession(resolve({"checkpoint": "x", "out": str(tmp_path / "run")}))
    with pytest.raises(ProbeError, match="not started"):
        session.next_stage()
    monkeypatch.setattr(session, "_send", sent.append)
    session.next_stage()
    session.toggle(waits=False)
    session.toggle(waits=True)
    session.run_all()
    session.toggle(waits=True)
    session.break_on("warn")
    assert sent == [Step(), Pause(), Step(), Continue(), Continue(), Break(on="warn")]


async def test_no_two_keys_do_the_same_and_all_have_help() -> None:
    assert len({k.key for k in KEYS}) == len(KEYS)
    assert all(k.help and k.label for k in KEYS)
    assert shown("shift+left,ctrl+q") == "⇧← ^q"
    assert shown(",") == ","


async def test_the_header_names_what_is_probed(app: ProbeApp) -> None:
    async with app.run_test(size=(120, 40)) as pilot:
        await pilot.pause()
        text = str(app.query_one("Header").render())
    assert "live objects" in text
    assert "AdamW lr 0.001" in text


async def test_a_terminal_that_is_too_small_is_told_so(app: ProbeApp) -> None:
    async with app.run_test(size=(40, 10)) as pilot:
        assert "too small: 60×20 at least" in (await settled(pilot)).text
        for size, fits in (((60, 19), False), ((59, 20), False), ((60, 20), True)):
            await pilot.resize_terminal(*size)
            text = (await settled(pilot)).text
            assert ("too small" not in text) == fits == ("Checks" in text), size


@pytest.mark.parametrize(
    ("width", "first"), [(120, "probe-tui · live objects"), (60, "live objects"), (30, "")]
)
async def test_the_header_gives_its_plainest_words_up_and_cuts_none(
    app: ProbeApp, width: int, first: str
) -> None:
    async with app.run_test(size=(width, 24)) as pilot:
        await pilot.pause()
        line = str(app.query_one("Header").render())
    assert line.strip().startswith(first)
    assert "…" not in line or width == 30


async def test_what_was_done_stands_in_the_bottom_line_and_covers_nothing(app: ProbeApp) -> None:
    async with app.run_test(size=(120, 40)) as pilot:
        await pilot.pause()
        await pilot.press("t")
        assert str(app.query_one("KeyLine").render()).strip() == f"theme {app.theme}"
        assert not list(app._notifications)
        await pilot.press("question_mark")
        app.take("x" * 9)  # over the bottom line lies the help
        await pilot.pause()
        assert len(list(app._notifications)) == 1


async def test_a_symbol_is_explained_where_it_is_met(app: ProbeApp) -> None:
    async with app.run_test(size=(160, 60)) as pilot:
        await pilot.press("2")
        assert "−η·r_n: what the prompt adds to δH₁" in (await settled(pilot)).words
        await pilot.press("question_mark", "end")
        assert "PY: Y after Adam's preconditioner" in (await settled(pilot)).words
        await pilot.press("escape", "enter", "end")
        assert "X·PY: what the prompt does to itself" in (await settled(pilot)).words


async def test_another_run_begins_with_the_step_that_it_takes(scripted: Scripted) -> None:
    app = ProbeApp(scripted)
    async with app.run_test(size=(120, 40)) as pilot:
        panel = app.query_one(RealizedPanel)
        panel.action_scale(-2)
        assert panel.scale != TAKEN
        await pilot.press("r", "enter")
        await pilot.pause()
        assert panel.scale == TAKEN


async def test_the_snippet_of_a_finding_is_copied_by_itself(app: ProbeApp, run: Path) -> None:
    async with app.run_test(size=(120, 40)) as pilot:
        await pilot.pause()
        panel = app.query_one(ChecksPanel)
        snippet = "import torch\nprint(torch.is_grad_enabled())"
        shown = finding("GRAD002", "fail", "off", evidence={"snippet": snippet})
        app.state = replace(app.state, report=msgspec.structs.replace(app.state.report, findings=[shown]))
        app.show()
        await pilot.press("1", "Y")
        assert panel.selected == shown
        assert (run / "clipboard.txt").read_text() == snippet


async def test_hidden_tabs_take_no_keys_and_are_as_large_as_the_visible_one(app: ProbeApp) -> None:
    async with app.run_test(size=(120, 40)) as pilot:
        await settled(pilot)
        panels = list(app.query(Panel))
        assert len({panel.outer_size for panel in panels}) == 1
        for panel in panels:
            app.action_tab(panel.id or "")
            inside = {w for w in app.screen.focus_chain if any(p in w.ancestors_with_self for p in panels)}
            assert inside
            assert all(panel in w.ancestors_with_self for w in inside)
