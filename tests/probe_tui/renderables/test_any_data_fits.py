"""Whatever the data: no exception, rows as wide and as many as asked, nothing that moves the cursor."""

from __future__ import annotations

import unicodedata
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from rich.text import Text

from probe_engine.report import (
    Finding,
    Histogram,
    Influence,
    RealizedRow,
    RealizedUnit,
    Remedy,
    ResponseRow,
    UnitRow,
    Verdict,
    VerdictRow,
)
from probe_tui.renderables.findings import finding_detail, finding_row
from probe_tui.renderables.forest import Interval, forest
from probe_tui.renderables.gauge import gauge
from probe_tui.renderables.heatmap import heatmap
from probe_tui.renderables.histogram import bins_at, histogram, shared_edges, value_range
from probe_tui.renderables.palette import COLOURBLIND, DEFAULT, MONO
from probe_tui.renderables.prompt import prompt_detail
from probe_tui.renderables.stages import stage_rows
from probe_tui.renderables.verdict import verdict_lines
from probe_tui.renderables.whatif import row_ess_at_scale
from probe_tui.state import StageState

WIDTHS = st.integers(20, 220)
HEIGHTS = st.integers(0, 40)
PALETTES = st.sampled_from([DEFAULT, COLOURBLIND, MONO])
ODD = [float("nan"), float("inf"), float("-inf"), 0.0, -0.0, 5e-324, 1.7e308, -1.7e308, 1e-5]
FLOATS = st.sampled_from(ODD) | st.floats()
NUMBERS = st.none() | FLOATS
COUNTS = st.integers(0, 2**63)
TEXTS = st.text(max_size=30) | st.text("a 你🙂👩‍🔬\u0301\u200d\ufe0f\t\n\r\x1b\x07\u202e\u2028", max_size=40)


def check(rows: list[Text], width: int, height: int | None = None) -> None:
    assert height is None or len(rows) == height
    for row in rows:
        assert row.cell_len <= width
        assert not any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") for c in row.plain)


@st.composite
def histograms(draw: st.DrawFn) -> Histogram:
    counts = draw(st.lists(st.integers(0, 5) | COUNTS, max_size=50))
    kind = draw(st.sampled_from(["even", "sorted", "any"]))
    if kind == "even":
        lo, step = draw(st.floats(-1e3, 1e3)), draw(st.floats(1e-9, 1e3))
        edges = [lo + i * step for i in range(len(counts) + 1)]
    else:
        edges = draw(st.lists(FLOATS, min_size=len(counts) + 1, max_size=len(counts) + 1))
        edges = sorted(edges) if kind == "sorted" else edges
    return Histogram(
        edges=edges, counts=counts, nan=draw(COUNTS), underflow=draw(COUNTS), overflow=draw(COUNTS)
    )


@given(
    st.none() | histograms(),
    WIDTHS,
    HEIGHTS,
    TEXTS,
    TEXTS,
    st.none() | st.tuples(FLOATS, FLOATS),
    st.none() | st.tuples(st.integers(-99, 99), st.integers(-99, 99)),
    st.booleans(),
    PALETTES,
)
def test_histogram(
    h: Histogram | None, width: int, height: int, title: str, unit: str, axis: Any, selected: Any,
    log_counts: bool, palette: Any,
) -> None:  # fmt: skip
    rows = histogram(
        h,
        width=width,
        height=height,
        title=title,
        unit=unit,
        palette=palette,
        axis=axis,
        selected=selected,
        log_counts=log_counts,
        empty_reason=unit,
    )
    check(rows, width, height)


@given(histograms(), st.integers(-5, 250), WIDTHS, st.none() | st.tuples(FLOATS, FLOATS))
def test_what_the_mouse_finds_is_a_bin(h: Histogram, column: int, width: int, axis: Any) -> None:
    bins = bins_at(h, column, width, axis)
    if bins is not None:
        assert 0 <= bins[0] <= bins[1] < len(h.counts)
        assert value_range(h, bins).lo <= value_range(h, bins).hi


@given(st.lists(st.none() | histograms(), max_size=3))
def test_shared_edges_hold_each_histogram_that_can_be_drawn(hs: list[Histogram | None]) -> None:
    ends = shared_edges(hs)
    for h in hs:
        if h is not None and shared_edges([h]) is not None:
            assert ends is not None
            assert ends[0] <= h.edges[0] < h.edges[-1] <= ends[1]


@given(
    st.lists(st.builds(Interval, TEXTS, NUMBERS, NUMBERS, NUMBERS, TEXTS), max_size=8),
    WIDTHS,
    TEXTS,
    PALETTES,
)
def test_forest(rows: list[Interval], width: int, unit: str, palette: Any) -> None:
    check(forest(rows, width=width, palette=palette, unit=unit), width, len(rows) + 3)


@given(
    st.none()
    | st.builds(
        Influence,
        ids=st.lists(TEXTS, max_size=9),
        K=st.lists(st.lists(NUMBERS, max_size=12), max_size=12) | st.just([[1.0] * 150] * 150),
    ),
    WIDTHS,
    HEIGHTS,
    st.none() | st.tuples(st.integers(-9, 200), st.integers(-9, 200)),
    st.booleans(),
    TEXTS,
    PALETTES,
)
def test_heatmap(
    influence: Influence | None, width: int, height: int, cursor: Any, means: bool, text: str, palette: Any
) -> None:
    rows = heatmap(
        influence,
        width=width,
        height=height,
        palette=palette,
        cursor=cursor,
        means=means,
        unit=text,
        empty_reason=text,
    )
    check(rows, width, height)


@given(
    NUMBERS,
    st.lists(st.tuples(st.floats(-1, 2), st.sampled_from(["warn", "fail"])), max_size=4),
    WIDTHS,
    TEXTS,
    PALETTES,
)
def test_gauge(fraction: float | None, lines: Any, width: int, label: str, palette: Any) -> None:
    check(gauge(fraction, width=width, lines=lines, palette=palette, label=label), width, 3)


EVIDENCE = st.recursive(
    st.none() | st.booleans() | st.integers() | FLOATS | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)


@given(
    st.builds(
        Finding,
        code=TEXTS,
        title=TEXTS,
        status=st.sampled_from(["ok", "info", "warn", "fail", "crash", "skip"]),
        message=TEXTS,
        value=NUMBERS | TEXTS,
        threshold=NUMBERS | TEXTS,
        evidence=st.dictionaries(TEXTS, EVIDENCE | st.just(object()), max_size=3),
        remedy=st.builds(Remedy, text=TEXTS, commands=st.lists(TEXTS, max_size=2)),
        reference=TEXTS,
        duration_ms=NUMBERS,
    ),
    WIDTHS,
    PALETTES,
)
def test_findings(f: Finding, width: int, palette: Any) -> None:
    check([finding_row(f, width=width, palette=palette)], width)
    check(finding_detail(f, width=width, palette=palette), width)


@given(
    st.lists(
        st.builds(
            StageState,
            name=TEXTS,
            status=st.sampled_from(["waiting", "running", "done", "stopped"]),
            began=FLOATS,
            seconds=st.floats(0, 1e6) | st.just(float("nan")),
            done=COUNTS,
            total=COUNTS,
            unit=TEXTS,
            worst=st.sampled_from(["ok", "warn", "fail", "crash"]),
        ),
        max_size=8,
    ),
    WIDTHS,
    FLOATS,
    st.none() | st.just("") | TEXTS,
    PALETTES,
)
def test_stages(stages: list[StageState], width: int, now: float, paused: str | None, palette: Any) -> None:
    check(stage_rows(stages, width=width, palette=palette, now=now, paused=paused), width, len(stages))


RESPONSES = st.builds(
    ResponseRow,
    text=TEXTS,
    length=COUNTS,
    terminated=st.booleans(),
    reward=NUMBERS,
    advantage=NUMBERS,
    S=NUMBERS,
    c=NUMBERS,
)
UNITS = st.builds(
    UnitRow,
    id=TEXTS,
    prompt=TEXTS,
    role=st.sampled_from(["E", "U"]),
    G=COUNTS,
    tokens=COUNTS,
    reward_mean=NUMBERS,
    reward_std=NUMBERS,
    S=st.just([]),
    advantages=st.just([]),
    x_norm=NUMBERS,
    y_norm=NUMBERS,
    py_norm=NUMBERS,
    x_dot_py=NUMBERS,
    contribution_s=NUMBERS,
    contribution_r=NUMBERS,
    covariance=NUMBERS,
    discriminant=NUMBERS,
    responses=st.lists(RESPONSES, max_size=2),
)


@given(UNITS, WIDTHS, TEXTS, PALETTES)
def test_prompt(unit: UnitRow, width: int, nats: str, palette: Any) -> None:
    check(prompt_detail(unit, width=width, palette=palette, nats=nats), width)


REALIZED = st.builds(
    RealizedRow,
    step=st.just("preconditioned"),
    pairing=st.sampled_from(["held_out", "same_batch"]),
    scale=FLOATS,
    predicted=NUMBERS,
    delta_h=NUMBERS,
    se=NUMBERS,
    ci95=st.none() | st.tuples(NUMBERS, NUMBERS),
    estimator=st.just("matched"),
    h_before=NUMBERS,
    h_after=NUMBERS,
    ess=NUMBERS,
    ess_fraction=NUMBERS,
    khat=NUMBERS,
    N=COUNTS,
    units=st.lists(
        st.builds(RealizedUnit, id=TEXTS, d=NUMBERS, ess=NUMBERS, log_w=st.lists(NUMBERS, max_size=4)),
        max_size=3,
    ),
)


@given(
    st.none()
    | st.builds(
        Verdict,
        status=st.sampled_from(["agree", "disagree", "inconclusive", "unreliable"]),
        row=st.just(VerdictRow(step="preconditioned", pairing="held_out", estimator="matched")),
        predicted=NUMBERS,
        measured=NUMBERS,
        z=NUMBERS,
        reason=TEXTS,
    ),
    st.lists(REALIZED, max_size=2),
    WIDTHS,
    TEXTS,
    st.none() | st.tuples(NUMBERS, NUMBERS),
    PALETTES,
)
def test_verdict(verdict: Any, rows: Any, width: int, unit: str, bounds: Any, palette: Any) -> None:
    drawn = verdict_lines(
        verdict, rows, width=width, palette=palette, unit=unit, predicted_ci95=bounds, empty_reason=unit
    )
    check(drawn, width)


@given(REALIZED, FLOATS)
def test_whatif_is_a_share_or_not_a_number(row: RealizedRow, scale: float) -> None:
    share = row_ess_at_scale(row, scale)
    assert share != share or 0 <= share <= 1 + 1e-9
