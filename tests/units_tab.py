"""What tests of the tab Units put on it and read off it."""

from __future__ import annotations

import random

import msgspec
import unit_states
from textual.pilot import Pilot
from textual.widgets import Static
from unit_states import Host, finally_, so_far, state_of

from probe_engine.report import UnitRow
from probe_tui.state import ScreenState
from probe_tui.widgets.histogram_view import HistogramView
from probe_tui.widgets.unit_table import UnitTable
from probe_tui.widgets.units import UnitsPanel

SIZE = (90, 34)
SIZES = [(60, 13), (80, 17), (90, 34), (170, 50)]
ROWS = unit_states.units(12)


def final(rows: list[UnitRow]) -> ScreenState:
    return state_of(*so_far(rows), *finally_(rows))


def app_of(state: ScreenState) -> Host:
    return Host(UnitsPanel(), state)


def table(app: Host) -> UnitTable:
    return app.query_one(UnitTable)


def rows_of(app: Host) -> list[str]:
    """What the table says below its titles."""
    shown = table(app)
    return [shown.render_line(y).text for y in range(1, shown.size.height)]


def colours_of(app: Host, row: int) -> set[str]:
    """In which a row is written, besides that of plain words."""
    shown = table(app)
    styles = [segment.style for segment in shown.render_line(row + 1)]
    colours = {style.color.name for style in styles if style is not None and style.color is not None}
    assert shown.rich_style.color is not None
    return colours - {shown.rich_style.color.name}


def view(app: Host, side: str) -> HistogramView:
    return app.query_one(f"#{side}", HistogramView)


def caption(app: Host) -> str:
    return str(app.query_one("#caption", Static).render())


def drawn(app: Host) -> list[str]:
    """The lines of the screen."""
    strips = app.screen._compositor.render_strips()
    return ["".join(segment.text for segment in strip) for strip in strips]


def words(app: Host) -> str:
    """All that the screen says, wherever its lines break."""
    return " ".join("\n".join(drawn(app)).split())


def by_size(rows: list[UnitRow]) -> list[str]:
    return [u.id for u in sorted(rows, key=lambda u: -abs(u.contribution_r or 0))]


def moved(rows: list[UnitRow], seed: int) -> list[UnitRow]:
    """The same units, other contributions."""
    draw = random.Random(seed)
    return [msgspec.structs.replace(u, contribution_r=draw.gauss(0, 2e-5)) for u in rows]


async def show(app: Host, pilot: Pilot[None], state: ScreenState) -> None:
    app.panel.show(state)
    await pilot.pause()
