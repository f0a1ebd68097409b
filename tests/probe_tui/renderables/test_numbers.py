"""Numbers as text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from probe_tui.renderables.numbers import count, duration, interval, number, share


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "—"),
        (0.0, "0"),
        (-0.0, "0"),
        (-0.0123456, "-0.0123"),
        (1.23e-5, "1.23e-05"),
        (float("inf"), "inf"),
    ],
)
def test_three_digits_and_a_dash_for_nothing(value: float | None, text: str) -> None:
    assert number(value) == text


def test_both_bounds_in_brackets() -> None:
    assert interval(-1.5, None) == "[-1.5, —]"


@pytest.mark.parametrize(("value", "text"), [(0.039, "3.9%"), (-12.0, "-1.2e+03%"), (None, "—")])
def test_shares_in_percent(value: float | None, text: str) -> None:
    assert share(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (9999, "9999"),
        (10_000, "10.0k"),
        (99_949, "99.9k"),
        (999_999, "999k"),
        (1_000_000, "1.0M"),
        (10**15, "1e+15"),
    ],
)
def test_counts_are_exact_as_long_as_they_are_short(value: int, text: str) -> None:
    assert count(value) == text


@given(st.integers(0, 10**30))
def test_counts_take_five_cells_at_most(value: int) -> None:
    assert len(count(value)) <= 5


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.0s"),
        (9.94, "9.9s"),
        (9.96, "10s"),
        (59.6, "1m00s"),
        (125, "2m05s"),
        (3599.7, "1h00m"),
        (3720, "1h02m"),
        (-1, "—"),
        (float("nan"), "—"),
    ],
)
def test_durations_round_to_what_one_reads(seconds: float, text: str) -> None:
    assert duration(seconds) == text
