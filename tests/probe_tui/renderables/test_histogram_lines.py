"""The histogram as pictures, and what it counts."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.text import Text

from probe_engine.report import Histogram
from probe_tui.renderables.binning import plot_bins
from probe_tui.renderables.histogram import GUTTER, bins_at, histogram, shared_edges, value_range
from probe_tui.renderables.palette import DEFAULT


def binned(edges: list[float], counts: list[int], **outside: int) -> Histogram:
    return Histogram(edges=edges, counts=counts, **{"nan": 0, "underflow": 0, "overflow": 0, **outside})


FOUR = binned([-3.0, -2.0, -1.0, 0.0, 1.0], [1, 4, 2, 8])


def drawn(h: Histogram | None, *, width: int = 26, height: int = 6, **options: Any) -> list[Text]:
    return histogram(h, width=width, height=height, title="+η·s_n", unit="nats", palette=DEFAULT, **options)


def picture(rows: list[Text]) -> str:
    return "\n" + "\n".join(row.plain.rstrip() for row in rows)


def test_bars_zero_and_labels() -> None:
    assert (
        picture(drawn(FOUR))
        == """
+η·s_n  15 values
    8┤               █████
     │     ▄▄▄▄▄     █████
     │▃▃▃▃▃█████▆▆▆▆▆█████
    0┼───────────────0────
count -3            1 nats"""
    )


def test_zero_is_a_line_where_no_bar_hides_it() -> None:
    assert (
        picture(drawn(binned([-2.0, -1.0, 0.0, 1.0, 2.0], [1, 2, 0, 1]), width=22, height=5))
        == """
+η·s_n  4 values
    2┤    ████┊
     │████████┊   ████
    0┼────────0───────
count -2        2 nats"""
    )


def test_what_is_exactly_0_is_said_and_drawn_as_neither_direction() -> None:
    edges, counts = [-2.0, -1.0, 0.0, 1.0, 2.0], [1, 2, 3, 1]
    assert picture(drawn(binned(edges, counts, zeros=3), width=22)).endswith("3 exactly 0")
    assert DEFAULT.rises not in styles_at(drawn(binned(edges, counts, zeros=3)), 0.5)
    assert DEFAULT.rises in styles_at(drawn(binned(edges, counts, zeros=2)), 0.5)
    assert DEFAULT.rises in styles_at(drawn(binned(edges, counts, zeros=3)), 1.5)


def styles_at(rows: list[Text], value: float) -> set[str]:
    """Of the bars' cells in the column of a value, on an axis from −2 to 2."""
    column = GUTTER + int((value + 2) / 4 * (26 - GUTTER))
    return {str(span.style) for row in rows[1:-3] for span in row.spans if span.start <= column < span.end}


def test_log_counts_lift_what_is_small() -> None:
    assert (
        picture(drawn(FOUR, log_counts=True))
        == """
+η…  15 values, log counts
    8┤     ▂▂▂▂▂     █████
     │     █████▄▄▄▄▄█████
     │████████████████████
    0┼───────────────0────
count -3            1 nats"""
    )


def test_what_is_off_the_axis_is_said_in_words() -> None:
    h = binned(FOUR.edges, FOUR.counts, nan=2, underflow=1, overflow=3)
    assert (
        picture(drawn(h, width=40, height=5))
        == """
+η·s_n  21 values
    8┤▁▁▁▁▁▁▁▁▄▄▄▄▄▄▄▄▄▂▂▂▂▂▂▂▂█████████
    0┼─────────────────────────0────────
count -3                          1 nats
2 NaN · 1 below -3 nats · 3 above 1 nats"""
    )


def test_bins_beyond_a_shared_axis_are_counted_not_drawn() -> None:
    assert (
        picture(drawn(FOUR, width=40, height=5, axis=(-1.0, 3.0)))
        == """
+η·s_n  15 values
    8┤▂▂▂▂▂▂▂▂█████████
    0┼────────0─────────────────────────
count -1                          3 nats
5 below -1 nats"""
    )


def test_bins_finer_than_columns_are_added_up_and_none_crosses_zero() -> None:
    assert (
        picture(drawn(FOUR, width=40, height=5, axis=(-30.0, 30.0)))
        == """
+η·s_n  15 values
    8┤               ▁▆█
    0┼─────────────────0────────────────
count -30                        30 nats
2 bins a bar"""
    )


def test_the_selection_has_its_range_and_count_in_the_title() -> None:
    rows = drawn(FOUR, width=40, selected=(2, 1))
    assert rows[0].plain == "+η·s_n  -2 … 0 nats: 6 of 15"
    assert [s.style for s in rows[0].spans][-1] == DEFAULT.selected
    axis_row = rows[-2]
    chosen = [s for s in axis_row.spans if s.style == DEFAULT.selected]
    # Two of four bins over 34 columns behind the gutter of 6.
    assert [(s.start, s.end) for s in chosen] == [(14, 31)]


def test_bars_out_of_the_selection_step_back() -> None:
    styles = {str(s.style) for s in drawn(FOUR, selected=(3, 3))[3].spans}
    assert {f"{DEFAULT.falls} {DEFAULT.muted}", DEFAULT.rises} <= styles


def test_sides_of_zero_have_their_styles() -> None:
    lowest = drawn(FOUR)[3]
    assert [(s.start, s.end, s.style) for s in lowest.spans[1:]] == [
        (6, 21, DEFAULT.falls),
        (21, 26, DEFAULT.rises),
    ]


def test_nothing_to_draw_says_why() -> None:
    reason = "Comes with the stage estimate."
    for h in (None, binned([-1.0, 0.0, 1.0], [0, 0])):
        assert (
            picture(drawn(h, height=4, empty_reason=reason))
            == """
+η·s_n
Comes with the stage
estimate.
"""
        )


@pytest.mark.parametrize(
    "h",
    [
        binned([0.0, 0.0], [3]),
        binned([0.0, float("inf")], [3]),
        binned([1.0, 0.0], [3]),
        binned([0.0, 1.0, 2.0], [3]),
        binned([], [], nan=2),
    ],
)
def test_edges_that_make_no_axis_say_so(h: Histogram) -> None:
    assert "no axis" in picture(drawn(h, width=80))
    assert bins_at(h, 10, 80) is None
    with pytest.raises(ValueError, match="edges"):
        value_range(h, (0, 0))


def test_low_panels_keep_the_title_the_bars_and_the_labels() -> None:
    assert (
        picture(drawn(FOUR, width=40, height=3))
        == """
+η·s_n  15 values
    8┤▁▁▁▁▁▁▁▁▄▄▄▄▄▄▄▄▄▂▂▂▂▂▂▂▂█████████
count -3                          1 nats"""
    )


def test_histograms_share_an_axis_that_holds_them_all() -> None:
    other = binned([-1.0, 0.0, 5.0], [1, 1])
    assert shared_edges([FOUR, None, other, binned([0.0, 0.0], [1])]) == (-3.0, 5.0)
    assert shared_edges([None]) is None
    # Zero is in the same column of both.
    zeros = [drawn(h, width=60, axis=(-3.0, 5.0))[-2].plain.rindex("0") for h in (FOUR, other)]
    assert zeros[0] == zeros[1]


def test_the_mouse_finds_the_bin_under_it() -> None:
    found = [bins_at(FOUR, column, 26) for column in range(-1, 27)]
    assert found == [None] * 7 + [(0, 0)] * 5 + [(1, 1)] * 5 + [(2, 2)] * 5 + [(3, 3)] * 5 + [None]
    assert bins_at(FOUR, 6 + 17, 40, (-30.0, 30.0)) == (3, 3)
    assert bins_at(FOUR, 6 + 16, 40, (-30.0, 30.0)) == (1, 2)


def test_a_range_holds_what_its_bins_count() -> None:
    inner, last = value_range(FOUR, (1, 2)), value_range(FOUR, (3, 9))
    assert [v in inner for v in (-2.0, -0.1, 0.0)] == [True, True, False]
    assert [v in last for v in (0.0, 1.0, 1.1, float("nan"))] == [True, True, False, False]


@given(
    st.lists(st.integers(0, 10_000), min_size=1, max_size=60),
    st.integers(0, 60),
    st.integers(14, 200),
    st.floats(0.3, 40),
)
def test_every_value_is_drawn_or_said(counts: list[int], left: int, columns: int, wider: float) -> None:
    """Bars and words together hold each bin once, whatever the axis."""
    h = binned([float(i - left) for i in range(len(counts) + 1)], counts)
    axis = (wider * h.edges[0], wider * h.edges[-1])
    if axis[1] <= axis[0]:
        return
    plot = plot_bins(h, columns, axis)
    assert plot is not None
    assert [b for bar in plot.bars for b in range(bar.first, bar.last + 1)] == list(range(len(counts)))
    assert sum(bar.count for bar in plot.bars) == sum(counts)
    assert not any(bar.lo < 0 < bar.hi for bar in plot.bars)


@given(st.lists(st.integers(0, 10_000), min_size=1, max_size=60), st.integers(0, 60))
def test_with_a_column_a_bin_every_bin_is_seen(counts: list[int], left: int) -> None:
    h = binned([0.01 * (i - left) for i in range(len(counts) + 1)], counts)
    width = GUTTER + max(len(counts), 14)
    seen = {bins_at(h, column, width) for column in range(GUTTER, width)}
    assert seen == {(bin, bin) for bin in range(len(counts))}
