"""One log, one screen: live, attached and replayed, a run ends in the same picture."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import checkpoints
import pytest
from pictures import SIZES, TABS, replayed, settled
from textual.pilot import Pilot

from probe_engine.events import Units
from probe_engine.sources.run_folder import read_events
from probe_engine.spec import resolve
from probe_tui.app import ProbeApp
from probe_tui.session import AttachedSession, LiveSession
from probe_tui.widgets.checks import ChecksPanel
from probe_tui.widgets.key_line import KeyLine

pytestmark = pytest.mark.asyncio


def blanked(svg: str) -> str:
    """A screen's picture without its first row, which has the badge and the clock.

    The names of its parts begin with a checksum over all that it shows, the first row included.
    """
    named = re.sub(r"terminal-\d+", "terminal", svg)
    return re.sub(r'<text [^>]*clip-path="url\(#terminal-line-0\)"[^>]*>[^<]*</text>', "", named)


async def every_tab(pilot: Pilot[Any]) -> dict[str, str]:
    """Each tab at each size, as SVG, without the keys: a recording has others than an engine."""
    pictures = {}
    pilot.app.query_one(KeyLine).visible = False
    for size in SIZES:
        await pilot.resize_terminal(*size)
        for tab in TABS:
            pilot.app.action_tab(tab.lower())  # type: ignore[attr-defined]
            await settled(pilot)
            pictures[f"{tab} at {size}"] = blanked(pilot.app.export_screenshot())
    return pictures


async def until(pilot: Pilot[Any], happened: Callable[[], object], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, "waited in vain"
        await pilot.pause(0.05)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of which something is missing: findings that ask for attention come in while it runs."""
    saved = checkpoints.run(tmp_path_factory.mktemp("saved"))
    (saved / "optimizer.pt").unlink()
    return saved


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Measured for seconds: long enough to be stopped in the middle."""
    return checkpoints.run(tmp_path_factory.mktemp("long"), prompts=150)


async def test_a_replay_ends_in_the_picture_that_the_live_run_ended_in(
    checkpoint: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    session = LiveSession(resolve({"checkpoint": str(checkpoint), "out": str(run), "device": "cpu"}))
    app = ProbeApp(session)
    try:
        async with app.run_test(size=SIZES[-1]) as pilot:
            await until(pilot, lambda: app.state.paused is not None)
            assert app.state.paused is not None
            assert app.state.paused.stage == "rollouts"
            await pilot.press("a")
            await until(pilot, lambda: app.state.ended is not None)
            assert "○ over" in (await settled(pilot)).rows[0]
            live = await every_tab(pilot)
    finally:
        await session.stop()
    for again, badge in (
        (replayed(run), "● replay"),
        (ProbeApp(AttachedSession(run)), "● attached, finished"),
    ):
        async with again.run_test(size=SIZES[-1]) as pilot:
            await until(pilot, lambda seen=again: seen.state.ended is not None)  # type: ignore[misc]
            assert badge in (await settled(pilot)).rows[0]
            pictures = await every_tab(pilot)
            assert again.state == app.state
        assert [name for name in live if pictures[name] != live[name]] == []


@contextmanager
def started_elsewhere(checkpoint: Path, run: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A headless run of another process, stopped in the middle of its measurement."""
    command = [sys.executable, "-m", "probe_tui", str(checkpoint), "--json", "--out", str(run)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        [*command, "--device", "cpu", "--fail-on", "never"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment,
    ) as process:
        try:
            deadline = time.monotonic() + 60
            while not (run / "events.jsonl").exists() or not measures(run):
                assert process.poll() is None
                assert time.monotonic() < deadline, "it measures nothing"
                time.sleep(0.02)
            process.send_signal(signal.SIGSTOP)
            yield process
        finally:
            process.kill()


def measures(run: Path) -> bool:
    return any(isinstance(event, Units) for event in read_events(run))


async def test_a_run_of_another_process_is_followed_to_its_end(long: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    with started_elsewhere(long, run) as process:
        app = ProbeApp(AttachedSession(run))
        async with app.run_test(size=(120, 40)) as pilot:
            await until(pilot, lambda: app.state.running is not None)
            seen = await settled(pilot)
            assert "● attached, running" in seen.rows[0]
            assert "▶ Measure" in seen.text
            measured = len(app.state.report.units)
            assert 0 < measured < 150
            process.send_signal(signal.SIGCONT)
            await until(pilot, lambda: app.state.ended is not None)
            assert "● attached, finished" in (await settled(pilot)).rows[0]
            assert len(app.state.report.units) == 150
            assert process.wait(60) == 0
            attached = await every_tab(pilot)
    async with replayed(run).run_test(size=(120, 40)) as pilot:
        assert await every_tab(pilot) == attached


async def test_a_run_of_another_process_that_was_killed_is_found_dead(long: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    with started_elsewhere(long, run) as process:
        process.kill()
        process.wait()
        log = run / "events.jsonl"
        minute_ago = time.time() - 60
        os.utime(log, (minute_ago, minute_ago))
        app = ProbeApp(AttachedSession(run))
        async with app.run_test(size=(120, 40)) as pilot:
            await until(pilot, lambda: app.state.ended is not None)
            seen = await settled(pilot)
            found = app.query_one(ChecksPanel).selected
            units = len(app.state.report.units)
    assert "● attached, dead" in seen.rows[0]
    assert "✗ Measure" in seen.text
    assert "✗ the engine died" in seen.text
    assert found is not None
    assert (found.code, found.status) == ("RUN001", "crash")
    assert 0 < units < 150
