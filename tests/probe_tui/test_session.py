"""Sessions: what each can be told, and what leaving one does to the run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import recorded

from probe_engine.control import Continue, Step, send
from probe_engine.errors import ProbeError
from probe_engine.events import Heartbeat, Paused, StageStarted, encode
from probe_engine.spec import resolve
from probe_tui.app import ProbeApp
from probe_tui.screens.leave import LeaveScreen
from probe_tui.session import RUNNING, AttachedSession, LiveSession, ReplaySession

pytestmark = pytest.mark.asyncio


def recording(run: Path, *said: object) -> Path:
    run.mkdir()
    log = recorded.events(recorded.hello(), StageStarted(stage="load"), *said)  # type: ignore[arg-type]
    (run / "events.jsonl").write_bytes(b"".join(map(encode, log)))
    return run


def told(run: Path) -> list[dict[str, object]]:
    control = run / "control.jsonl"
    return [json.loads(line) for line in control.read_bytes().splitlines()] if control.exists() else []


@pytest.fixture
def watched(tmp_path: Path) -> Path:
    """A run whose engine gives signs of life: it has a control file."""
    return recording(tmp_path / "watched", Heartbeat())


async def test_an_attached_screen_hands_an_engine_its_commands(watched: Path) -> None:
    app = ProbeApp(AttachedSession(watched))
    async with app.run_test(size=(120, 40)) as pilot:
        await pilot.pause(0.1)
        line = str(app.query_one("KeyLine").render())
        await pilot.press("n", "p", "b", "r", "x")
    step, pause = {"do": "step", "attached": True}, {"do": "pause", "attached": True}
    assert told(watched) == [step, pause, {"do": "break", "on": "fail", "attached": True}, {"do": "stop"}]
    assert "n next" in line
    assert "r re-run" not in line


async def test_what_waits_goes_on_as_before_whoever_made_it_step(watched: Path) -> None:
    session = AttachedSession(watched)
    await session.start()
    session.poll()
    for earlier, expected in ((Step(), "step"), (Continue(), "continue")):
        send(watched, earlier)
        session.poll()
        session.toggle(waits=True)
        assert told(watched)[-1]["do"] == expected


async def test_leaving_an_attached_run_changes_nothing_in_it(tmp_path: Path) -> None:
    run = recording(tmp_path / "waits", Heartbeat(), Paused(stage="", reason="breakpoint: OPT004"))
    app = ProbeApp(AttachedSession(run))
    async with app.run_test(size=(120, 40)) as pilot:
        await pilot.pause(0.1)
        await pilot.press("q")
        assert isinstance(app.screen, LeaveScreen)
        said = " ".join(str(w.render()) for w in app.screen.query("Static"))
        await pilot.press("l")
        await pilot.pause()
    assert "as it is: waiting, and p goes on" in said
    assert told(run) == []
    assert app.return_value == 0


async def test_a_run_without_a_control_file_says_why_it_takes_nothing(tmp_path: Path) -> None:
    run = recording(tmp_path / "headless")
    session = AttachedSession(run)
    app = ProbeApp(session)
    async with app.run_test(size=(120, 40)) as pilot:
        await pilot.pause(0.1)
        await pilot.press("p")
        line = str(app.query_one("KeyLine").render())
        await pilot.press("q")  # nothing can be asked
        await pilot.pause()
    assert "reads no commands: Ctrl-C where it runs" in line
    with pytest.raises(ProbeError, match="reads no commands"):
        session.run_all()
    assert told(run) == []
    assert app.return_value == 0


async def test_a_live_run_that_is_over_can_only_be_run_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = LiveSession(resolve({"checkpoint": "x", "out": str(tmp_path / "run")}))
    assert session.commands == RUNNING
    monkeypatch.setattr(LiveSession, "ended", True)
    assert session.commands == {"rerun"}
    assert "r runs again" in session.why_not


async def test_the_bottom_line_has_the_keys_of_a_recording_and_no_others(tmp_path: Path) -> None:
    run = recording(tmp_path / "run", StageStarted(stage="rollouts"), recorded.finished())
    app = ProbeApp(ReplaySession(run))
    async with app.run_test(size=(120, 40)) as pilot:
        await pilot.pause()
        line = str(app.query_one("KeyLine").render())
        assert all(sign in line for sign in ("[ back", "] forth", ", slower", ". faster", "n next"))
        assert not any(sign in line for sign in ("x stop", "r re-run", "b break"))
        await pilot.press("x")
        assert "can't be changed" in str(app.query_one("KeyLine").render())


async def test_a_breakpoint_stays_in_sight(watched: Path) -> None:
    app = ProbeApp(AttachedSession(watched))
    async with app.run_test(size=(120, 40)) as pilot:
        await pilot.pause(0.1)
        header = app.query_one("Header")
        assert "breaks on" not in str(header.render())
        await pilot.press("b")
        assert "◆ breaks on fail" in str(header.render())
        await pilot.press("b", "b")
        assert "breaks on" not in str(header.render())
