"""What the Realized tab says, line by line."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from rich.style import Style
from rich.text import Text

from probe_engine.report import Finding, RealizedRow, Report
from probe_tui.estimates import comparisons, dashed, predictor, short_unit
from probe_tui.plain import MARKS
from probe_tui.renderables.cells import cut, paragraph, row
from probe_tui.renderables.forest import forest
from probe_tui.renderables.gauge import gauge
from probe_tui.renderables.histogram import histogram
from probe_tui.renderables.numbers import number, share
from probe_tui.renderables.palette import Palette
from probe_tui.renderables.sweep import RULE, sweep_rows
from probe_tui.renderables.verdict import no_khat, verdict_lines
from probe_tui.renderables.whatif import change_at_scale, ess_without, row_ess_at_scale
from probe_tui.state import SEVERITY
from probe_tui.sweep_words import range_words, scale_words, self_influence_words, sweep_title
from probe_tui.widgets.number_panel import Line

SCALES = (1 / 4, 1 / 3, 1 / 2, 3 / 4, 1.0, 1.5, 2.0, 3.0, 4.0)
"""Steps that one can ask about, as multiples of the one that was taken."""
SCALE_LABELS = ("¼", "⅓", "½", "¾", "1", "1½", "2", "3", "4")
TAKEN = SCALES.index(1.0)
ESS_LINES = ((0.5, "warn"), (0.3, "fail"))
"""Of STAT001."""
TRUST = ("GRAD021", "STAT001", "STAT002", "STAT004", "OPT010")
"""Findings that say how far the numbers of this tab can be trusted."""
BAR = "▌ "
WORST_UNITS = 4
GAUGE, GAP, HISTOGRAM = 46, 3, 34
"""Columns of a gauge, between it and what stands beside it, and what a histogram needs to stand there."""
HISTOGRAM_ROWS = 9


def realized_lines(report: Report, *, scale: int, width: int, palette: Palette) -> list[Line]:
    """The whole panel, the verdict first; empty before anything was measured.

    Args:
        scale: which of SCALES the what-if is about.
    """
    if not report.realized and report.verdict is None:
        return []
    roomy = width >= GAUGE + GAP + HISTOGRAM
    narrow = min(width, GAUGE)
    weights = _joined(_what_if(report, scale, narrow, palette), _weights(report, narrow, palette))
    drawn = _log_weights(report, width - GAUGE - GAP if roomy else width, palette)
    return _joined(
        _verdict(report, width, palette),
        _banners(report, width, palette),
        _comparison(report, width, palette),
        _sweep(report, width, palette),
        _self_influence(report, width, palette),
        *((_beside(weights, drawn),) if roomy else (weights, drawn)),
        _hungry_units(report, width, palette),
    )


def _joined(*parts: Iterable[Line]) -> list[Line]:
    """The parts that there are, an empty row between them."""
    lines: list[Line] = []
    for part in map(list, parts):
        lines += [Line(Text()), *part] if lines and part else part
    return lines


def _beside(left: Sequence[Line], right: Iterable[Line]) -> list[Line]:
    """What is drawn on the right continues the rows on the left."""
    rows = iter([text for line in right for text in line.text.split("\n")])
    lines = []
    for line in left:
        texts = line.text.split("\n", allow_blank=True)
        for text in texts:
            if (beyond := next(rows, None)) is not None:
                text.pad_right(GAUGE + GAP - text.cell_len)
                text.append_text(beyond)
        lines.append(replace(line, text=Text("\n").join(texts)))
    return [*lines, *map(Line, rows)]


def _verdict(report: Report, width: int, palette: Palette) -> Iterator[Line]:
    v = report.verdict
    source = None if v is None else predictor(report.estimates, v.row.step, v.row.pairing, v.row.x_estimator)
    rows = verdict_lines(
        v,
        report.realized,
        width=width,
        palette=palette,
        unit=short_unit(report),
        predicted_ci95=None if source is None else (source.interval.lo, source.interval.hi),
        empty_reason="The verdict comes with the stage judge.",
    )
    yield Line.of(rows) if v is None else Line.of(rows, ".verdict", f"{v.status}: {v.reason}")


def _banners(report: Report, width: int, palette: Palette) -> Iterator[Line]:
    """What speaks against the numbers, worst first, each with what to do."""
    serious = [f for f in report.worst(("warn", "fail", "crash")) if f.code in TRUST]
    for f in sorted(serious, key=lambda f: -SEVERITY.index(f.status)):
        style = palette.status(f.status)
        head = f"{MARKS[f.status]} {f.status} {f.code}"
        said = [f"{head} {f.message}", f"what to do: {f.remedy.text}" if f.remedy.text else ""]
        said += [f"$ {command}" for command in f.remedy.commands]
        rows = [text for s in said if s for text in paragraph(width, s, first=BAR, indent=BAR)]
        rows[0].stylize(style, 0, len(BAR + head))
        for text in rows:
            text.stylize(style, 0, 1)
        copied = "\n".join(f.remedy.commands) or f.remedy.text or f.message
        yield Line.of(rows, f'.findings[] | select(.code=="{f.code}")', copied)


def _comparison(report: Report, width: int, palette: Palette) -> Iterator[Line]:
    """δH₁ against ΔĤ, all on one axis."""
    groups = list(comparisons(report))
    estimates = [e for _, members in groups for e in members]
    if not estimates:
        return
    plot = forest([e.interval for e in estimates], width=width, palette=palette, unit=short_unit(report))
    drawn = iter(plot)
    title = f"δH₁ against ΔĤ, {short_unit(report)}, 95% intervals"
    yield Line.of(paragraph(width, title, palette.accent))
    for heading, members in groups:
        yield Line.of(paragraph(width, heading, palette.muted))
        for e in members:
            yield Line(next(drawn), e.path, e.said(short_unit(report)))
    yield from map(Line, drawn)


def _sweep(report: Report, width: int, palette: Palette) -> Iterator[Line]:
    """ΔĤ per step at each scale, with the end of the linear range."""
    swept = report.sweep
    if swept is None:
        return
    unit = short_unit(report)
    yield Line.of(paragraph(width, sweep_title(swept, unit), palette.accent))
    first, *drawn = sweep_rows(swept, width=width, palette=palette, unit=unit)
    yield Line(first)
    points = iter(enumerate(swept.points))
    for text in drawn:
        if text.plain.startswith(RULE):
            yield Line(text, ".sweep.linear_range", range_words(swept))
        elif (indexed := next(points, None)) is not None:
            index, point = indexed
            said = f"ΔĤ at {scale_words(point.scale)} = {number(point.delta_h, 6)} {unit}"
            yield Line(text, f".sweep.points[{index}].delta_h", said)
        else:
            yield Line(text)
    if swept.curvature is not None:
        said = f"curvature C = {number(swept.curvature)} ± {number(swept.curvature_se)} {unit}"
        rows = paragraph(width, f"{said}: ΔĤ ≈ k·δH₁ + k²·C at k × step", palette.muted)
        yield Line.of(rows, ".sweep.curvature", said)


def _self_influence(report: Report, width: int, palette: Palette) -> Iterator[Line]:
    own = report.self_influence
    if own is not None:
        said = self_influence_words(own, short_unit(report))
        yield Line.of(paragraph(width, said), ".self_influence.value", said)


def _weights(report: Report, width: int, palette: Palette) -> Iterator[Line]:
    """ESS and k̂ of each pairing: do a few responses carry the measurement?"""
    tail = next((f for f in report.findings if f.code == "STAT002"), None)
    both = len({r.step for r in report.realized}) > 1
    for index, measured in _per_pairing(report):
        name = f"{measured.step} {dashed(measured.pairing)}" if both else dashed(measured.pairing)
        bar = gauge(
            measured.ess_fraction, width=width, lines=ESS_LINES, palette=palette, label=f"{name} ESS/N"
        )
        ess = f"ESS {_size(measured.ess)} of {measured.N}"
        yield Line.of(
            bar, f".realized[{index}].ess_fraction", f"{name} {ess}, {share(measured.ess_fraction)}"
        )
        khat = f"k̂ {number(measured.khat)}{_judged(measured, tail)}"
        rows = paragraph(width, f"{ess}, {khat}", indent="  ")
        yield Line.of(rows, f".realized[{index}].khat", f"{name} Pareto {khat}")


def _judged(measured: RealizedRow, tail: Finding | None) -> str:
    """What STAT002 says of this k̂: it judges the larger one alone."""
    if measured.khat is None:
        return f" ({no_khat(measured)})"
    if tail is None or tail.value != measured.khat or not isinstance(tail.threshold, float):
        return ""
    return f" {MARKS[tail.status]} {tail.status}, limit {number(tail.threshold)}"


def _size(ess: float | None) -> str:
    """A number of responses: whole ones are not rounded away."""
    return f"{ess:.0f}" if ess is not None and 100 <= ess < math.inf else number(ess)


def _what_if(report: Report, chosen: int, width: int, palette: Palette) -> Iterator[Line]:
    """What a smaller or larger step would do: to entropy, and to the ESS."""
    found = _held_out(report)
    if found is None:
        return
    index, measured = found
    scale, label = SCALES[chosen], SCALE_LABELS[chosen]
    fraction = row_ess_at_scale(measured, scale)
    lr = report.checkpoint.optimizer.lr if report.checkpoint is not None else None
    at = f"{label} × the step" + ("" if lr is None else f", --lr {number(lr * scale)}")
    change = _change_words(report, measured, scale)
    rows = [
        row(width, [("what if the step were", palette.accent), ("  ← → change it", palette.muted)]),
        _choices(chosen, palette),
        *gauge(fraction, width=width, lines=ESS_LINES, palette=palette, label="held-out ESS/N ≈"),
        row(width, [(at, "")]),
        *(paragraph(width, change, indent="  ") if change else ()),
        *paragraph(width, "approximate: log-weights scale to first order", palette.muted),
    ]
    said = f"{at}: held-out ESS/N ≈ {number(fraction)} (approximate)"
    yield Line.of(rows, f".realized[{index}].units[].log_w", f"{said}; {change}" if change else said)


def _change_words(report: Report, measured: RealizedRow, scale: float) -> str:
    """What entropy would do at a multiple of the step, by the sweep of it; empty where nobody knows."""
    swept = report.sweep
    if swept is None or swept.step != measured.step or (parts := change_at_scale(swept, scale)) is None:
        return ""
    linear, bent = parts
    said = f"ΔH ≈ {number(linear + bent)} {short_unit(report)}"
    if swept.curvature is None:
        doubt = "" if scale <= (swept.linear_range or 0.0) else ", which is not known to hold there"
        return f"{said} to first order{doubt}"
    doubt = " (longer than any step tried)" if scale > max(swept.scales) else ""
    return f"{said}, {number(bent)} of it from curvature{doubt}"


def _choices(chosen: int, palette: Palette) -> Text:
    """The scales, the chosen one in brackets; each can be clicked."""
    text = Text(no_wrap=True)
    for index, label in enumerate(SCALE_LABELS):
        here = index == chosen
        style = Style.parse(palette.selected if here else "") + Style(meta={"scale": index})
        text.append(f"[{label}]" if here else f" {label} ", style)
    return text


def _hungry_units(report: Report, width: int, palette: Palette) -> Iterator[Line]:
    """The units without which the ESS would be largest, each with how even its own weights are."""
    found = _held_out(report)
    if found is None:
        return
    index, measured = found
    known = [
        (without, u.ess, i, u)
        for i, (u, without) in enumerate(zip(measured.units, ess_without(measured), strict=True))
        if math.isfinite(without) and u.ess is not None and math.isfinite(u.ess) and u.log_w
    ]
    known.sort(key=lambda k: (-k[0], *k[1:3]))
    prompts = {u.id: u.prompt for u in report.units}
    if known:
        title = "units that eat the ESS: ESS/N without each, and its own ESS"
        yield Line.of(paragraph(width, title, palette.accent))
    for without, own, i, u in known[:WORST_UNITS]:
        worth = f"{number(own)} of {len(u.log_w)}"
        start = f"{share(without).rjust(7)}  {worth.ljust(12)}  {u.id}  "
        text = row(width, [(start, ""), (cut(prompts.get(u.id, ""), width - len(start)), palette.muted)])
        said = f"{u.id}: ESS {worth}; without it ESS/N {share(without)}"
        yield Line(text, f".realized[{index}].units[{i}].ess", said)


def _log_weights(report: Report, width: int, palette: Palette) -> Iterator[Line]:
    if report.histograms.log_w is None:
        return
    rows = histogram(
        report.histograms.log_w,
        width=width,
        height=HISTOGRAM_ROWS,
        title="log w, held-out",
        unit="nats",
        # A weight's sign says nothing of where entropy goes: no colour of a direction.
        palette=replace(palette, falls=palette.info, rises=palette.info),
    )
    while rows and not rows[-1].plain:
        rows.pop()
    yield Line.of(rows, ".histograms.log_w", "\n".join(text.plain for text in rows))


def _per_pairing(report: Report) -> Iterator[tuple[int, RealizedRow]]:
    """The rows whose weights are as they came: PSIS smooths them, fresh responses have none."""
    seen = set()
    for index, measured in enumerate(report.realized):
        key = (measured.step, measured.pairing)
        if measured.estimator not in ("psis", "resample") and key not in seen:
            seen.add(key)
            yield index, measured


def _held_out(report: Report) -> tuple[int, RealizedRow] | None:
    return next(((i, r) for i, r in _per_pairing(report) if r.pairing == "held_out"), None)
