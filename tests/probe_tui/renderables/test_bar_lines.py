"""Signed bars as pictures."""

from __future__ import annotations

from rich.text import Text

from probe_tui.renderables.bars import signed_bars
from probe_tui.renderables.palette import DEFAULT


def drawn(*items: tuple[str, float | None], width: int = 40) -> list[Text]:
    return signed_bars(items, width=width, palette=DEFAULT, unit="nats")


def picture(rows: list[Text]) -> str:
    return "\n" + "\n".join(row.plain.rstrip() for row in rows)


def test_left_falls_right_rises_and_the_smallest_is_seen() -> None:
    assert (
        picture(drawn(("401=", -0.004), ("23=", 0.002), ("7=", -0.00001), ("9=", None)))
        == """
401= ███████████████│        -0.004 nats
23=                 │███████ 0.002 nats
7=                  ▌        -1e-05 nats
9=                  │        — nats
     ◀ falls         rises ▶"""
    )


def test_what_is_infinite_ends_in_an_arrow() -> None:
    rows = drawn(("a", float("inf")), ("b", 1.0), ("c", float("-inf")), ("d", float("nan")))
    assert rows[0].plain.split()[1].endswith("▶")
    assert rows[2].plain.split()[1].startswith("◀")
    assert "█" not in rows[3].plain


def test_numbers_give_way_to_bars() -> None:
    assert (
        picture(drawn(("a prompt", -1.0), ("b", 0.5), width=20))
        == """
a pro… ████████│
b              │████
"""
    )


def test_signs_have_their_styles() -> None:
    falls, rises, _ = drawn(("a", -1.0), ("b", 1.0))
    assert DEFAULT.falls in {s.style for s in falls.spans}
    assert DEFAULT.rises in {s.style for s in rises.spans}
