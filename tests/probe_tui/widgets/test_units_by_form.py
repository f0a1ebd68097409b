"""The tab Units where there are two forms of the entropy gradient."""

from __future__ import annotations

import msgspec
import pytest
import unit_states
from textual.containers import VerticalScroll
from textual.widgets import Static
from unit_states import Host, counted, finally_, state_of

from probe_engine.events import Contributions, EstimateEvent, HistogramEvent
from probe_engine.report import Estimates, Histograms, UnitRow, XEstimates
from probe_engine.spec import XForm
from probe_tui.state import ScreenState
from probe_tui.widgets.histogram_view import HistogramView
from probe_tui.widgets.unit_table import UnitTable
from probe_tui.widgets.units import UnitsPanel

pytestmark = pytest.mark.asyncio

SIZE = (170, 50)


def negated(value: float | None) -> float | None:
    return None if value is None else -value


ROWS: list[UnitRow] = [
    msgspec.structs.replace(
        u, contribution_s_rb=negated(u.contribution_s), contribution_r_rb=negated(u.contribution_r), r_rb=7.0
    )
    for u in unit_states.units(12)
]
"""By the Rao-Blackwell form every contribution has the other sign."""
HISTOGRAMS = Histograms(
    s=counted(u.contribution_s for u in ROWS),
    r=counted(u.contribution_r for u in ROWS),
    s_rb=counted(u.contribution_s_rb for u in ROWS),
    r_rb=counted(u.contribution_r_rb for u in ROWS),
)


def by_both(headline: XForm) -> ScreenState:
    (_, told, _) = finally_(ROWS)
    assert isinstance(told, EstimateEvent)
    score = told.estimates.u_statistic
    assert score is not None
    turned = msgspec.structs.replace(score, delta_h1=negated(score.delta_h1))
    estimates = Estimates(
        u_statistic=score, rao_blackwell=XEstimates(u_statistic=turned), x_estimator=headline
    )
    last = [EstimateEvent(estimates=estimates), HistogramEvent(histograms=HISTOGRAMS)]
    return state_of(*finally_(ROWS), *last)


def title(app: Host, side: str) -> str:
    return app.query_one(f"#{side}", HistogramView).drawing.title


def caption(app: Host) -> str:
    return str(app.query_one("#caption", Static).render())


def first_change(app: Host) -> float:
    """Of the unit on top, as the table says it."""
    return float(app.query_one(UnitTable).render_line(1).text.split()[0].replace("−", "-"))


async def test_it_opens_with_the_headline_s_and_g_shows_the_other() -> None:
    app = Host(UnitsPanel(), by_both("rao_blackwell"))
    async with app.run_test(size=SIZE) as pilot:
        await pilot.pause()
        quieter = first_change(app)
        assert title(app, "s") == "+η·s_n over E, R-B"
        assert app.panel.json_path().endswith("| .contribution_r_rb")
        assert "U-statistic's δH₁ 1e-05" in caption(app)
        assert caption(app).endswith("g form")
        assert "· r 7" in app.panel.copy_text()
        await pilot.press("enter")
        assert app.screen.query_one(VerticalScroll).border_title.startswith("unit ")
        assert ", R-B ·" in app.screen.query_one(VerticalScroll).border_title
        await pilot.press("escape")
        await pilot.press("g")
        assert first_change(app) == -quieter
        assert title(app, "s") == "+η·s_n over E, score"
        assert app.panel.json_path().endswith("| .contribution_r")
        assert "U-statistic's δH₁ -1e-05" in caption(app)
        await pilot.press("tab")
        assert app.panel.json_path() == ".histograms.s"
        await pilot.press("g")
        assert app.panel.json_path() == ".histograms.s_rb"


async def test_what_was_asked_for_stays_when_more_is_known() -> None:
    app = Host(UnitsPanel(), by_both("score"))
    async with app.run_test(size=SIZE) as pilot:
        await pilot.pause()
        assert title(app, "r") == "−η·r_n over all, score"
        await pilot.press("g")
        app.panel.show(by_both("score"))
        await pilot.pause()
        assert title(app, "r") == "−η·r_n over all, R-B"


async def test_while_units_are_measured_both_grow() -> None:
    growing = Contributions(
        ids=[u.id for u in ROWS],
        s=[u.contribution_s for u in ROWS],
        r=[u.contribution_r for u in ROWS],
        s_rb=[u.contribution_s_rb for u in ROWS],
        r_rb=[u.contribution_r_rb for u in ROWS],
    )
    units = unit_states.so_far(ROWS)[0]
    app = Host(UnitsPanel(), state_of(units, growing, HistogramEvent(histograms=HISTOGRAMS)))
    async with app.run_test(size=SIZE) as pilot:
        await pilot.pause()
        score = first_change(app)
        assert title(app, "r") == "−η·r_n over all, score, so far"
        await pilot.press("g")
        assert first_change(app) == -score


async def test_with_the_score_form_alone_g_says_how_to_get_the_other() -> None:
    app = Host(UnitsPanel(), state_of(*finally_(ROWS)))
    async with app.run_test(size=SIZE) as pilot:
        await pilot.pause()
        assert title(app, "s") == "+η·s_n over E"
        await pilot.press("g")
        assert title(app, "s") == "+η·s_n over E"
        (said,) = app._notifications
        assert "--x-estimator both" in said.message
