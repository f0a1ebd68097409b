"""Pictures for the README: a real run on the demo checkpoint, recorded, replayed and drawn.

    python screenshots/make.py [FOLDER]

Writes plain.svg, a picture of each tab as SVG and PNG, and session.cast (asciicast v2: `asciinema play`).
PNG needs Chromium or Chrome; without one the SVGs are written and the script says so.
"""

from __future__ import annotations

import asyncio
import io
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.text import Text
from session_cast import record

from probe_tui.app import ProbeApp
from probe_tui.session import ReplaySession

HERE = Path(__file__).parent
CACHE = Path(tempfile.gettempdir()) / "probe-tui-demo"
"""The demo's paths are in the pictures: a neutral place, not somebody's home."""

PLAIN_WIDTH = 132
TABS = ("checks", "units", "influence", "entropy", "realized")
SIZES = {"": (120, 40), "-narrow": (80, 24)}
NARROW_TABS = ("units",)


def main() -> None:
    """Makes every picture anew."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else HERE
    environment = {**os.environ, "XDG_CACHE_HOME": str(CACHE)}
    with tempfile.TemporaryDirectory() as temporary:
        run = Path(temporary) / "run"
        done = subprocess.run(
            [sys.executable, "-m", "probe_tui", "--demo", "--plain", "--out", str(run)],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            env=environment,
        )
        (folder / "plain.svg").write_text(plain(done.stdout.split("\nrun folder:")[0]))
        for suffix, size in SIZES.items():
            tabs = TABS if not suffix else NARROW_TABS
            for name, svg in asyncio.run(pictures(run, size, tabs)).items():
                (folder / f"{name}{suffix}.svg").write_text(svg)
    record(folder / "session.cast", [sys.executable, "-m", "probe_tui", "--demo"], environment)
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        print("no Chromium or Chrome here: the PNGs were left as they are", file=sys.stderr)
        return
    for svg_file in sorted(folder.glob("*.svg")):
        rasterise(browser, svg_file)


def plain(text: str) -> str:
    """What `--plain` prints, as a terminal's picture."""
    console = Console(record=True, width=PLAIN_WIDTH, file=io.StringIO(), force_terminal=True)
    for line in text.splitlines():
        console.print(Text(line, style="bold" if line.startswith(("▶", "  VERDICT")) else ""))
    return console.export_svg(title="probe-tui --demo --plain", unique_id="plain")


async def pictures(run: Path, size: tuple[int, int], tabs: tuple[str, ...]) -> dict[str, str]:
    """Each tab at the end of the recording, as SVG."""
    session = ReplaySession(run)
    session.player.to_end()
    app = ProbeApp(session)
    drawn = {}
    async with app.run_test(size=size) as pilot:
        await pilot.pause(0.5)
        for tab in tabs:
            app.action_tab(tab)
            await pilot.pause(0.5)
            drawn[tab] = app.export_screenshot(title="probe-tui")
    return drawn


def rasterise(browser: str, svg_file: Path) -> None:
    """SVG to PNG at its own size."""
    view = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', svg_file.read_text())
    if view is None:
        raise SystemExit(f"{svg_file}: no viewBox")
    width, height = (round(float(side)) for side in view.groups())
    subprocess.run(
        [
            browser,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--no-first-run",
            "--disable-background-networking",
            "--hide-scrollbars",
            f"--window-size={width},{height}",
            f"--screenshot={svg_file.with_suffix('.png').absolute()}",
            svg_file.absolute().as_uri(),
        ],
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


if __name__ == "__main__":
    main()
