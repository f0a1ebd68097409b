"""The gauge as pictures."""

from __future__ import annotations

import pytest

from probe_tui.renderables.gauge import gauge, standing
from probe_tui.renderables.palette import DEFAULT

ESS = ((0.5, "warn"), (0.3, "fail"))


def picture(fraction: float | None, width: int = 40) -> str:
    rows = gauge(fraction, width=width, lines=ESS, palette=DEFAULT, label="ESS/N")
    return "\n" + "\n".join(row.plain.rstrip() for row in rows)


def test_the_word_stands_beside_the_number_and_limits_under_the_bar() -> None:
    assert (
        picture(0.4)
        == """
ESS/N 0.4  ! warn, below 0.5
████████████████────┊───────────────────
            ▴0.3    ▴0.5 warn"""
    )
    assert (
        picture(0.1, width=60)
        == """
ESS/N 0.1  ✗ fail, below 0.3
██████────────────┊───────────┊─────────────────────────────
                  ▴0.3 fail   ▴0.5 warn"""
    )


def test_the_word_is_not_cut_for_a_limit_that_the_marks_show_as_well() -> None:
    assert picture(0.1, width=28).splitlines()[1] == "ESS/N 0.1  ✗ fail, below 0.3"
    assert picture(0.1, width=27).splitlines()[1] == "ESS/N 0.1  ✗ fail"


def test_all_well_and_not_known() -> None:
    assert picture(0.8).splitlines()[1] == "ESS/N 0.8  ✓ ok"
    assert picture(None).splitlines()[1] == "ESS/N —  not known"
    assert picture(float("nan")) == picture(None)


def test_a_bar_at_a_limit_ends_where_the_limit_is_marked() -> None:
    rows = gauge(0.5, width=40, lines=ESS, palette=DEFAULT, label="ESS/N")
    assert rows[1].plain.count("█") == rows[2].plain.index("▴0.5")


@pytest.mark.parametrize(
    ("fraction", "word"),
    [(0.5, "ok"), (0.4999, "warn"), (0.3, "warn"), (0.2999, "fail"), (-1.0, "fail"), (9.0, "ok")],
)
def test_standing_is_that_of_method_18(fraction: float, word: str) -> None:
    assert standing(fraction, ESS) == word
    assert f" {word}" in picture(fraction).splitlines()[1]
