"""Values to columns and back."""

from __future__ import annotations

import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from rich.cells import cell_len

from probe_tui.renderables.axis import Axis, direction, labels, spans, ticks
from probe_tui.renderables.palette import DEFAULT

FINITE = st.floats(allow_nan=False, allow_infinity=False)


@pytest.mark.parametrize(
    ("lo", "hi", "width"),
    [(1.0, 1.0, 5), (2.0, 1.0, 5), (0.0, math.inf, 5), (math.nan, 1.0, 5), (0.0, 1.0, 0)],
)
def test_an_axis_that_can_not_be_drawn_is_not_built(lo: float, hi: float, width: int) -> None:
    with pytest.raises(ValueError, match="ascending"):
        Axis(lo, hi, width)


def test_columns_share_the_range_evenly() -> None:
    axis = Axis(-1.0, 1.0, 4)
    assert [axis.column(v) for v in (-1.0, -0.51, -0.5, 0.0, 0.99, 1.0)] == [0, 0, 1, 2, 3, 3]
    assert [axis.column(v) for v in (-math.inf, math.inf)] == [0, 3]
    assert axis.zero == 2
    assert Axis(1.0, 2.0, 4).zero is None


def test_it_holds_zero_and_what_is_finite() -> None:
    assert Axis.over([2.0, math.inf, math.nan, 3.0], 9) == Axis(0.0, 3.0, 9)
    assert Axis.over([], 9) == Axis(-1.0, 1.0, 9)
    assert Axis.over([5e-324], 9) == Axis(-1.0, 1.0, 9)


@given(FINITE, FINITE, st.integers(1, 200), st.data())
def test_a_columns_middle_is_in_that_column(lo: float, hi: float, width: int, data: st.DataObject) -> None:
    assume(spans(lo, hi))
    # Ranges that their own floats can resolve.
    assume(abs(hi / 2 - lo / 2) > 1e-9 * max(abs(lo), abs(hi)))
    axis = Axis(lo, hi, width)
    column = data.draw(st.integers(0, width - 1))
    assert axis.column(axis.centre(column)) == column


def test_the_tick_at_zero_is_its_label() -> None:
    assert ticks(Axis(-1.0, 1.0, 8)) == "────0───"
    assert ticks(Axis(1.0, 2.0, 4)) == "────"


def test_labels_give_up_the_unit_then_digits_then_themselves() -> None:
    axis = (-0.0012345, 0.0012345)
    assert labels(Axis(*axis, 24), "nats") == "-0.00123    0.00123 nats"
    assert labels(Axis(*axis, 18), "nats") == "-0.00123   0.00123"
    assert labels(Axis(*axis, 14), "nats") == "-0.0012 0.0012"
    assert labels(Axis(*axis, 12), "nats") == "-0.001 0.001"
    assert labels(Axis(*axis, 6), "nats") == " " * 6


@given(FINITE, FINITE, st.integers(1, 60), st.sampled_from(["", "nats", "你好"]))
def test_labels_are_as_wide_as_the_axis(lo: float, hi: float, width: int, unit: str) -> None:
    assume(spans(lo, hi))
    assert cell_len(labels(Axis(lo, hi, width), unit)) == width


def test_left_is_where_entropy_falls() -> None:
    assert "".join(glyphs for glyphs, _ in direction(34, DEFAULT)) == "◀ entropy falls    entropy rises ▶"
    assert "".join(glyphs for glyphs, _ in direction(18, DEFAULT)) == "◀ falls    rises ▶"
    assert direction(10, DEFAULT) == []
