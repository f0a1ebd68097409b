"""The screen of a recorded run as it is drawn: its rows, their styles, what stands where."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from textual.geometry import Region
from textual.pilot import Pilot
from textual.scroll_view import ScrollView
from textual.strip import Strip
from textual.widget import Widget

from probe_tui.app import ProbeApp
from probe_tui.session import ReplaySession

RECORDINGS = Path(__file__).parent / "recordings"
SIZES = ((60, 20), (80, 24), (120, 40))
TABS = ("Checks", "Units", "Influence", "Entropy", "Realized", "Log")
"""In the order of their keys, 1 to 6."""


@dataclass(frozen=True)
class Leaf:
    """A widget that draws text itself, and the part of the screen that its text may take."""

    kind: str
    """Its class."""
    id: str | None
    region: Region
    hidden: int
    """Columns of it that lie beyond its right edge."""


@dataclass(frozen=True)
class Picture:
    """One moment of the screen."""

    strips: tuple[Strip, ...]
    leaves: tuple[Leaf, ...]

    @property
    def rows(self) -> list[str]:
        """Its characters, without the blanks at the end of a row."""
        return [strip.text.rstrip() for strip in self.strips]

    @property
    def text(self) -> str:
        """All of it, a line a row."""
        return "\n".join(self.rows) + "\n"

    @property
    def words(self) -> str:
        """All of it, in one line: what wraps at one size does not at another."""
        return " ".join(self.text.split())

    def within(self, region: Region) -> list[str]:
        """The rows of a part of it."""
        return [strip.crop(region.x, region.right).text for strip in self.strips[region.y : region.bottom]]


def size_name(size: tuple[int, int]) -> str:
    """`80x24`."""
    return f"{size[0]}x{size[1]}"


def copied(name: str, folder: Path) -> Path:
    """A recording that may be written to: what `y` copies is also written into the run's folder."""
    return Path(shutil.copytree(RECORDINGS / name, folder / name))


def replayed(run: Path, events: int | None = None) -> ProbeApp:
    """The screen of a recording, after so many events, or at its end; its clock stands still."""
    session = ReplaySession(run)
    session.player.pause()
    if events is None:
        session.player.to_end()
    for _ in range(events or 0):
        session.player.step()
    return ProbeApp(session, clock=lambda: 0.0)


async def settled(pilot: Pilot[Any]) -> Picture:
    """The screen once nothing changes any more: a resize, for one, takes some rounds to arrive."""
    app = pilot.app
    before = None
    for _ in range(20):
        await pilot.pause()
        now = taken(app)
        if before is not None and now.strips == before.strips:
            return now
        before = now
    raise AssertionError("the screen does not come to rest")


def taken(app: Any) -> Picture:
    """What the visible screen shows now."""
    # Textual offers the drawn rows to no one else: an exported SVG has lost which cells they are.
    compositor = app.screen._compositor
    leaves = [
        Leaf(
            type(widget).__name__,
            widget.id,
            widget.scrollable_content_region.intersection(clip),
            widget.max_scroll_x if isinstance(widget, ScrollView) else 0,
        )
        for widget, (region, clip) in compositor.visible_widgets.items()
        if draws(widget) and region.overlaps(clip)
    ]
    return Picture(tuple(compositor.render_strips(app.size)), tuple(leaves))


def draws(widget: Widget) -> bool:
    """Containers only hold what draws."""
    return isinstance(widget, ScrollView) or not widget.is_container
