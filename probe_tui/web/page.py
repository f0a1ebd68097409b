"""The exported page: `report.html.jinja` filled from the screen's state."""

from __future__ import annotations

import base64
import hashlib
import math
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from probe_engine.events import Failed
from probe_engine.report import Report, UnitRow
from probe_tui.clipboard import headless_command
from probe_tui.estimates import dashed, headline, measurements, numbers, predictions, short_unit, unit_numbers
from probe_tui.glossary import GLOSSARY, UNITS
from probe_tui.plain import MARKS, flow_lines
from probe_tui.renderables.cells import cut
from probe_tui.renderables.findings import ATTENTION, causes_first
from probe_tui.renderables.numbers import interval, number, share
from probe_tui.renderables.verdict import SAID
from probe_tui.state import ScreenState
from probe_tui.web import drawing
from probe_tui.x_form import by_form, histograms_by

FOLDER = Path(__file__).parent
PROMPT = 70
"""Characters of a prompt that are shown before one opens it."""


def page(state: ScreenState) -> str:
    """One page of HTML, all that the report says of the batch as a whole and of each unit.

    Prompts, messages and names come from files that others wrote: everything is escaped, and the page's own
    policy lets nothing run but its own script.
    """
    report = state.report
    style, script = (Markup((FOLDER / name).read_text("utf-8")) for name in ("report.css", "report.js"))
    environment = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"dashed": dashed, "number": number, "share": share}
    return environment.get_template("report.html.jinja").render(
        report=report,
        title=_title(report),
        stopped=state.ended if isinstance(state.ended, Failed) else None,
        headline=headline(report),
        verdict_said=SAID[report.verdict.status] if report.verdict is not None else None,
        urgent=[f for f, _ in causes_first(report.findings)],
        others=[f for f in report.findings if f.status not in ATTENTION],
        marks=MARKS,
        unit=short_unit(report),
        plots=_plots(report),
        tables=list(numbers(report)),
        units=_units(report),
        flow=flow_lines(report.gradient_flow) if report.gradient_flow is not None else [],
        short=lambda prompt: cut(prompt, PROMPT),
        legend=UNITS,
        glossary=GLOSSARY,
        unit_number=unit_numbers(report),
        interval=interval,
        command=headless_command(report, "."),
        style=style,
        script=script,
        policy=f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(script)}; base-uri 'none'",
    )


def _title(report: Report) -> str:
    path = report.checkpoint.path if report.checkpoint is not None else None
    return f"{Path(path).name} · probe-tui" if path else "probe-tui"


def _plots(report: Report) -> list[tuple[str, Markup]]:
    """Captions and drawings."""
    unit, h = short_unit(report), report.histograms
    estimates = (*predictions(report.estimates), *measurements(report))
    plots = []
    if estimates:
        caption = "Predicted δH₁ and measured ΔĤ, 95% intervals"
        plots.append((caption, drawing.forest([e.interval for e in estimates], title=caption, unit=unit)))
    of_s, of_r = histograms_by(h, report.estimates.x_estimator)
    for caption, counted in (
        ("Contributions of the prompts in E, +η·s_n", of_s),
        ("Contributions of all prompts, −η·r_n", of_r),
    ):
        if counted is not None:
            plots.append((caption, drawing.histogram(counted, title=caption, unit=unit)))
    if h.log_w is not None:
        caption = "Log-weights S⁺ − S, held-out pairing"
        plots.append((caption, drawing.histogram(h.log_w, title=caption, unit="nats", directed=False)))
    return plots


def _units(report: Report) -> list[tuple[UnitRow, float | None]]:
    """Each with its share of the change, those that move it most first; by the headline's form of X."""
    units = [by_form(u, report.estimates.x_estimator) for u in report.units]
    total = math.fsum(u.contribution_r for u in units if u.contribution_r is not None)
    ranked = sorted(units, key=lambda u: -abs(u.contribution_r or 0.0))
    return [(u, u.contribution_r / total if u.contribution_r is not None and total else None) for u in ranked]


def _hash(text: str) -> str:
    """A source expression of a content security policy: this very text and no other."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
