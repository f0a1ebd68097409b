"""Entropy: every estimate of the predicted change on one axis, and the numbers behind them."""

from __future__ import annotations

from rich.cells import cell_len
from rich.text import Text

from probe_engine.report import Estimates, Report
from probe_tui.estimates import (
    Named,
    headline,
    leading,
    numbers,
    predictions,
    short_unit,
    step_parts,
)
from probe_tui.renderables.cells import fill, paragraph, row
from probe_tui.renderables.forest import forest
from probe_tui.renderables.palette import Palette
from probe_tui.renderables.signed_bars import signed_bars
from probe_tui.widgets.number_panel import Line, NumberPanel

SHORTEST_MEANING = 30
"""Columns that a number's meaning needs to stand beside it; else it stands below."""


class EntropyPanel(NumberPanel):
    """A headline, a forest plot, a table; the cursor goes through all of their numbers."""

    stage = "estimate"
    root = ".estimates"

    def lines(self, report: Report, width: int) -> list[Line]:
        """Every estimate."""
        return entropy_lines(report, width=width, palette=self.palette)


def entropy_lines(report: Report, *, width: int, palette: Palette) -> list[Line]:
    """The whole panel; empty before there are estimates."""
    if report.estimates == Estimates():
        return []
    tables = list(numbers(report))
    every = [n for _, table in tables for n in table]
    lines = _headline(report, width, palette) + _plot(report, width, palette) + _parts(report, width, palette)
    for title, table in tables:
        lines += [_heading(title, width, palette), *_table(table, every, width, palette), Line(Text())]
    return lines[:-1]


def _headline(report: Report, width: int, palette: Palette) -> list[Line]:
    head = headline(report)
    if head is None:
        why = "There is no estimate of δH₁: too few prompts, or what was measured is no number. See Checks."
        return [Line.of(paragraph(width, why, palette.warn)), Line(Text())]
    style = palette.accent
    if head.certain:
        style = f"{style} {palette.sign(head.estimate.interval.value)}"
    # An interval that breaks in the middle reads badly: it moves to the next line as a whole.
    whole = f"{head.value}, {head.bounds}"
    numbers = [whole] if cell_len(whole) <= width else [head.value, head.bounds]
    rows = [
        *(text for line in numbers for text in paragraph(width, line, style)),
        *paragraph(width, f"{head.words} {head.by}".rstrip()),
    ]
    return [Line.of(rows, head.estimate.path, head.estimate.said(short_unit(report))), Line(Text())]


def _plot(report: Report, width: int, palette: Palette) -> list[Line]:
    """All changes of entropy on one axis."""
    unit = short_unit(report)
    predicted, measured = predictions(report.estimates), leading(report)
    estimates = (*predicted, *measured)
    if not estimates:
        return []
    rows = forest([e.interval for e in estimates], width=width, palette=palette, unit=unit)
    drawn = [Line(text, e.path, e.said(unit)) for text, e in zip(rows, estimates, strict=False)]
    lines: list[Line] = []
    for title, members in (
        (f"predicted δH₁, {unit}, 95% intervals", drawn[: len(predicted)]),
        ("measured ΔĤ, after the step on a copy", drawn[len(predicted) :]),
    ):
        lines += [_heading(title, width, palette), *members] if members else []
    return [*lines, *map(Line, rows[len(drawn) :]), Line(Text())]


def _parts(report: Report, width: int, palette: Palette) -> list[Line]:
    """Which part of the optimizer's step moves entropy, and which way."""
    parts = step_parts(report)
    if not parts:
        return []
    drawn = signed_bars([(n.label, n.value) for n in parts], width=width, palette=palette)
    lines = [Line(text, n.path, f"{n.label} = {n.text}") for text, n in zip(drawn, parts, strict=True)]
    title = f"what moves it: the parts of the optimizer's step, {short_unit(report)}"
    return [_heading(title, width, palette), *lines, Line(Text())]


def _heading(title: str, width: int, palette: Palette) -> Line:
    return Line.of(paragraph(width, title, palette.accent))


def _table(table: list[Named], aligned: list[Named], width: int, palette: Palette) -> list[Line]:
    """A number a line: label, value with unit, what it means; columns as wide as all those `aligned` need."""
    labels = max(cell_len(n.label) for n in aligned) + 2
    values = max(cell_len(n.text) for n in aligned) + 2
    beside = width - labels - values >= SHORTEST_MEANING
    lines = []
    for n in table:
        start = fill(n.label, labels) + fill(n.text, values)
        if beside:
            rows = paragraph(width, n.meaning, palette.muted, first=start, indent=" " * (labels + values))
            # The number itself is no small print.
            rows[0] = row(width, [(start, ""), (rows[0].plain[len(start) :], palette.muted)])
        else:
            rows = [
                row(width, [(start.rstrip(), "")]),
                *paragraph(width, n.meaning, palette.muted, first="    ", indent="    "),
            ]
        lines.append(Line.of(rows, n.path, f"{n.label} = {n.text}"))
    return lines
