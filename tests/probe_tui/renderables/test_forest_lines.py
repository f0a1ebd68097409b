"""The forest plot as pictures."""

from __future__ import annotations

from rich.text import Text

from probe_tui.renderables.forest import Interval, forest
from probe_tui.renderables.palette import DEFAULT

ROWS = (
    Interval("U-statistic", -1, -2, -0.25),
    Interval("split", 0.5, -1, 2, "B 8"),
    Interval("wild", 0.1, -50, 50),
    Interval("adamw", None, None, None),
)


def drawn(*rows: Interval, width: int) -> list[Text]:
    return forest(rows, width=width, palette=DEFAULT, unit="nats")


def picture(rows: list[Text]) -> str:
    return "\n" + "\n".join(row.plain.rstrip() for row in rows)


def test_intervals_on_one_axis_arrows_where_they_leave_it() -> None:
    assert (
        picture(drawn(*ROWS, width=60))
        == """
U-statistic            ├─●─┤                 -1 [-2, -0.25]
split                    ├─┼●──┤             0.5 [-1, 2] B 8
wild        ◀──────────────●──────────────▶  0.1 [-50, 50]
adamw                      │                 — no interval
            ───────────────0───────────────
            -8                       8 nats
            ◀ falls                 rises ▶"""
    )


def test_numbers_give_way_to_the_drawing() -> None:
    assert (
        picture(drawn(ROWS[0], width=36))
        == """
U-statistic ├─────────●──────┤ │  -1
            ───────────────────0
            -2            0 nats
            ◀ falls      rises ▶"""
    )
    assert picture(drawn(ROWS[0], width=24)).splitlines()[1] == "U-stati… ├──────●─────┤│"


def test_notes_go_first_then_bounds() -> None:
    assert "B 8" in picture(drawn(ROWS[1], width=40))
    assert "B 8" not in picture(drawn(ROWS[1], width=36))
    assert "[-1, 2]" in picture(drawn(ROWS[1], width=36))


def test_an_estimate_without_an_interval_is_a_point() -> None:
    rows = drawn(Interval("a", 1, None, None), Interval("b", -0.5, -1, None), width=44)
    assert (
        picture(rows[:2])
        == """
a              │            ●  1 no interval
b ├─────●      │               -0.5 [-1, —]"""
    )


def test_a_point_off_the_axis_is_an_arrow() -> None:
    near = [Interval("near", 1.0, 0.5, 1.5)] * 3
    assert drawn(*near, Interval("far", -99.0, None, None), width=40)[3].plain.split()[1].startswith("◀")
    endless = drawn(*near, Interval("inf", 1.0, float("-inf"), float("inf")), width=40)[3].plain
    assert "◀" in endless
    assert "▶" in endless


def test_a_known_sign_has_its_style_and_an_open_one_has_not() -> None:
    styles = [[str(s.style) for s in row.spans] for row in drawn(*ROWS[:2], width=60)]
    assert DEFAULT.falls in styles[0]
    assert DEFAULT.falls not in styles[1]
    assert DEFAULT.rises not in styles[1]


def test_bounds_in_the_wrong_order_are_put_right() -> None:
    swapped = drawn(Interval("a", 1, 2, 0.5), width=40)[0].plain
    assert swapped.index("├") < swapped.index("●") < swapped.index("┤")


def test_no_estimates_leave_an_axis() -> None:
    assert (
        picture(drawn(width=30))
        == """
 ──────────────0──────────────
 -1                     1 nats
 ◀ falls               rises ▶"""
    )
