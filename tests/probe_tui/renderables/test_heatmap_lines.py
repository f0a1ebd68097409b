"""The influence matrix as pictures."""

from __future__ import annotations

from typing import Any

import pytest
from rich.text import Text

from probe_engine.report import Influence
from probe_tui.renderables.heatmap import glyphs, heatmap
from probe_tui.renderables.palette import DEFAULT

SMALL = Influence(ids=["aa", "bb", "cc"], K=[[-1.0, 0.0, 0.05], [0.2, -0.4, None], [0.001, -0.02, -1.0]])
BAND = Influence(
    ids=[f"p{i}" for i in range(12)],
    K=[[(-1) ** (i + j) * 10.0 ** -abs(i - j) for j in range(12)] for i in range(12)],
)


def drawn(influence: Influence | None, *, width: int = 62, height: int = 8, **options: Any) -> list[Text]:
    return heatmap(influence, width=width, height=height, palette=DEFAULT, **options)


def picture(rows: list[Text]) -> str:
    return "\n" + "\n".join(row.plain.rstrip() for row in rows)


def test_shades_signs_scale_and_the_cell_in_words() -> None:
    assert (
        picture(drawn(SMALL, cursor=(1, 0)))
        == """
entropy of ↓ trained on →, precond step
    1
 1 █−· ▒+
 2 ▓+█−?
 3 ░+░−█−
− falls + rises  █ ≥0.32 ▓ ≥0.1 ▒ ≥0.032 ░ less, nats
training on 1 moves the entropy of 2 by 0.2 nats: it rises ·
aa → bb"""
    )


def test_means_on_request_and_the_largest_without_a_cursor() -> None:
    assert (
        picture(drawn(SMALL, height=9, means=True))
        == """
entropy of ↓ trained on →, precond step
      1   3│mean
   1 █−· ▒+│░+
   2 ▓+█−? │▓+
   3 ░+░−█−│░−
mean ▓+░−▒+
− falls + rises  █ ≥0.32 ▓ ≥0.1 ▒ ≥0.032 ░ less, nats
largest: training on 3 moves the entropy of 3 by -1 nats: it
falls · mean of the others: row -0.0095, column 0.05 · cc → cc"""
    )


def test_it_scrolls_around_the_cursor_and_says_what_is_seen() -> None:
    assert (
        picture(drawn(BAND, width=21, cursor=(11, 6)))
        == """
↓→ rows 10–12/12 · c…
        5   7    10
10 ░−░+░−░+░−░+▓−█+▓−
11 ░+░−░+░−░+░−░+▓−█+
12 ░−░+░−░+░−░+░−░+▓−
− falls + rises  █▓▒░
training 7 → entropy
12: -1e-05 nats: it"""
    )
    assert drawn(BAND, cursor=(0, 0))[0].plain == "entropy of ↓ trained on →, precond step · rows 1–3/12"
    wide = Influence(ids=[], K=[[0.1] * 99] * 2)
    assert (
        drawn(wide, cursor=(0, 98))[0].plain == "entropy of ↓ trained on →, precond step · columns 71–99/99"
    )


def test_rows_and_columns_are_known_by_the_numbers_that_they_are_given() -> None:
    rows = drawn(SMALL, cursor=(1, 0), numbers=[31, 7, 12])
    assert [row.plain.split()[0] for row in rows[2:5]] == ["31", "7", "12"]
    assert "training on 31 moves the entropy of 7 by 0.2" in " ".join(row.plain for row in rows)


def test_the_legend_gives_up_its_measures_before_its_signs() -> None:
    for width in (21, 30, 45, 57, 80):
        legend = drawn(SMALL, width=width)[-3].plain
        assert legend.startswith("− falls + rises")
        assert "…" not in legend
        assert all(shade in legend for shade in "█▓▒░")


def test_the_cursor_is_kept_inside_and_selected() -> None:
    rows = drawn(SMALL, cursor=(99, -4))
    assert "training on 1 moves the entropy of 3 by 0.001" in rows[-2].plain
    chosen = [s for s in rows[4].spans if DEFAULT.selected in str(s.style)]
    assert [(s.start, s.end) for s in chosen] == [(3, 5)]
    assert not any(DEFAULT.selected in str(s.style) for row in drawn(SMALL) for s in row.spans)


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "? "), (0.0, "· "), (-1.0, "█−"), (0.3, "▓+"), (-0.05, "▒−"), (1e-9, "░+"), (float("nan"), "? ")],
)
def test_a_shade_is_half_a_decade(value: float | None, text: str) -> None:
    assert glyphs(value, scale=1.0) == text


def test_no_matrix_says_why() -> None:
    assert (
        picture(drawn(None, height=3, empty_reason="the vectors were not kept"))
        == """
influence of training on one prompt on the entropy of another
the vectors were not kept
"""
    )
    assert "nothing yet" in picture(drawn(Influence(ids=[], K=[])))
