"""Signed bars as pictures."""

from __future__ import annotations

import math

from probe_tui.renderables.palette import DEFAULT
from probe_tui.renderables.signed_bars import signed_bars

PARTS = [("gradient", -0.25), ("momentum", 1.0), ("nothing", 0.0), ("unknown", None)]


def test_the_largest_fills_its_side_and_zero_is_in_the_middle() -> None:
    drawn = signed_bars(PARTS, width=32, palette=DEFAULT)
    assert [text.plain for text in drawn] == [
        "gradient       ██│         -0.25",
        "momentum         │████████ 1",
        "nothing          │         0",
        "unknown          │         —",
    ]
    styles = [{str(span.style) for span in text.spans} for text in drawn]
    assert DEFAULT.falls in styles[0]
    assert DEFAULT.rises in styles[1]


def test_what_is_no_number_has_no_bar_and_no_rows_are_drawn_as_none() -> None:
    drawn = signed_bars([("a", math.nan), ("b", math.inf), ("c", None)], width=20, palette=DEFAULT)
    assert all("█" not in text.plain for text in drawn)
    assert signed_bars([], width=20, palette=DEFAULT) == []


def test_it_never_gets_wider_than_its_room() -> None:
    for width in (4, 11, 200):
        assert all(text.cell_len <= width for text in signed_bars(PARTS, width=width, palette=DEFAULT))
