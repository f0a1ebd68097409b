"""Inline SVG: every mark where its value is, every number said, everything escaped."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from typing import Any

import pytest

from probe_engine.report import Histogram
from probe_tui.renderables.forest import Interval
from probe_tui.web.drawing import MARGIN, WIDTH, forest, histogram

ROWS = [
    Interval("falls", -0.5, -0.75, -0.25),
    Interval("unsure", 0.0, -0.25, 0.25),
    Interval("rises", 1.0, 0.5, 1.25),
    Interval("no interval", -0.25, None, None),
    Interval("no number", None, None, None),
]


def drawn(markup: Any) -> ElementTree.Element:
    return ElementTree.fromstring(str(markup))


def of_class(root: ElementTree.Element, tag: str, style: str) -> list[ElementTree.Element]:
    return [e for e in root.iter(tag) if e.get("class") == style]


def x_of(value: float) -> float:
    """On the axis of ROWS, −0.75 … 1.25."""
    return MARGIN + (value + 0.75) / 2 * (WIDTH - 2 * MARGIN)


def test_points_and_intervals_are_where_their_values_are() -> None:
    root = drawn(forest(ROWS, title="changes", unit="nats"))
    circles = [(c.get("class"), float(c.get("cx", ""))) for c in root.iter("circle")]
    assert circles == [
        ("falls", pytest.approx(x_of(-0.5), abs=0.01)),
        ("unsure", pytest.approx(x_of(0.0), abs=0.01)),
        ("rises", pytest.approx(x_of(1.0), abs=0.01)),
        ("unsure", pytest.approx(x_of(-0.25), abs=0.01)),
    ]
    (falls,) = of_class(root, "path", "falls")
    assert (falls.get("d") or "").startswith(f"M{x_of(-0.75):.2f} ")
    assert f"H{x_of(-0.25):.2f}" in (falls.get("d") or "")
    assert len(of_class(root, "path", "zero")) == len(ROWS)


def test_every_number_is_said_and_the_axis_has_its_unit() -> None:
    texts = [t.text for t in drawn(forest(ROWS, title="changes", unit="nats")).iter("text")]
    for words in ("-0.5 [-0.75, -0.25]", "1 [0.5, 1.25]", "-0.25", "—", "-0.75", "1.25 nats", "0"):
        assert words in texts
    assert {"◀ entropy falls", "entropy rises ▶"} <= set(texts)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_no_number_is_not_drawn(value: float) -> None:
    root = drawn(forest([Interval("odd", value, value, value)], title="t", unit="nats"))
    assert list(root.iter("circle")) == []


def test_bars_are_as_high_as_their_counts_on_their_side_of_0() -> None:
    h = Histogram(edges=[-2.0, -1.0, 0.0, 1.0], counts=[4, 0, 2], nan=1, underflow=0, overflow=3)
    root = drawn(histogram(h, title="t", unit="nats"))
    bars = list(root.iter("rect"))
    assert [b.get("class") for b in bars] == ["falls", "falls", "rises"]
    heights = [float(b.get("height", "")) for b in bars]
    assert heights == [2 * heights[2], 0.0, heights[2]]
    assert [b[0].text for b in bars] == ["-2 … -1 nats: 4", "-1 … 0 nats: 0", "0 … 1 nats: 2"]
    texts = [t.text for t in root.iter("text")]
    assert "1 not a number, 3 above" in texts
    assert {"-2", "1 nats", "highest bar: 4"} <= set(texts)


def test_log_weights_have_no_colour_of_a_direction() -> None:
    h = Histogram(edges=[-1.0, 0.0, 1.0], counts=[1, 1], nan=0, underflow=0, overflow=0)
    root = drawn(histogram(h, title="t", unit="nats", directed=False))
    assert {b.get("class") for b in root.iter("rect")} == {"neutral"}


def test_edges_that_span_nothing_are_said_to() -> None:
    flat = Histogram(edges=[0.0, 0.0], counts=[3], nan=0, underflow=0, overflow=0)
    assert histogram(flat, title="a <b>", unit="nats") == "<p>a &lt;b&gt;: nothing to draw</p>"


def test_names_are_escaped() -> None:
    hostile = '"><script>alert(1)</script>'
    root = drawn(forest([Interval(hostile, 1.0, None, None)], title=hostile, unit=hostile))
    assert {e.tag for e in root.iter()} == {"svg", "text", "path", "circle"}
    assert root.get("aria-label") == hostile
    assert hostile in [t.text for t in root.iter("text")]
