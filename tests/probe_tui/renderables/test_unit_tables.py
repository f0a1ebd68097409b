"""The table of units."""

from __future__ import annotations

from typing import Any

import pytest

from probe_engine.report import UnitRow
from probe_tui.renderables.histogram import ValueRange
from probe_tui.renderables.palette import DEFAULT
from probe_tui.renderables.tables import UnitTable, contribution, unit_rows


def unit(name: str, r: float | None, **changes: Any) -> UnitRow:
    values: dict[str, Any] = {
        "id": name,
        "prompt": f"prompt {name}",
        "role": "E",
        "G": 8,
        "tokens": 40,
        "reward_mean": 0.5,
        "reward_std": 0.1,
        "S": [],
        "advantages": [],
        "x_norm": 1.0,
        "y_norm": 1.0,
        "py_norm": 1.0,
        "x_dot_py": 1.0,
        "contribution_r": r,
        "responses": [],
    }
    return UnitRow(**(values | changes))


UNITS = [
    unit("a", 0.25, reward_mean=0.0, contribution_s=2.0),
    unit("b", -1.0, role="U", reward_mean=None),
    unit("c", None, reward_mean=1.0, prompt="Before all"),
    unit("d", -0.25, reward_mean=0.75),
]


def table(width: int = 120, **options: Any) -> UnitTable:
    return unit_rows(UNITS, width=width, palette=DEFAULT, **options)


def ids(found: UnitTable) -> str:
    return "".join(row.id for row in found.rows)


def test_what_moves_entropy_most_comes_first_with_its_share() -> None:
    found = table(unit="nats/slot")
    assert [c.title for c in found.columns] == (
        ["−η·r_n nats/slot", "share", "role", "reward", "responses", "tokens", "id", "prompt"]
    )
    assert [[cell.plain for cell in row.cells] for row in found.rows] == [
        ["-1", "100.0%", "U", "—", "8", "40", "b", "prompt b"],
        ["0.25", "-25.0%", "E", "0", "8", "40", "a", "prompt a"],
        ["-0.25", "25.0%", "E", "0.75", "8", "40", "d", "prompt d"],
        ["—", "—", "E", "1", "8", "40", "c", "Before all"],
    ]


@pytest.mark.parametrize(
    ("order", "expected"),
    [("contribution", "badc"), ("role", "acdb"), ("reward", "cdab"), ("prompt", "cabd")],
)
def test_orders(order: Any, expected: str) -> None:
    assert ids(table(order=order)) == expected


def test_a_range_chooses_units_and_leaves_shares_alone() -> None:
    found = table(selected_range=ValueRange(-0.25, 0.25, closed=False))
    assert ids(found) == "d"
    assert found.rows[0].cells[1].plain == "25.0%"
    assert ids(table(selected_range=ValueRange(-0.25, 0.25, closed=True))) == "ad"


def test_the_other_histograms_side() -> None:
    found = table(side="s")
    assert found.columns[0].title == "+η·s_n nats"
    assert found.rows[0].cells[0].plain == "2"
    assert contribution(UNITS[1], "s") is None


def test_contributions_that_cancel_have_no_share() -> None:
    found = unit_rows([unit("a", 1.0), unit("b", -1.0)], width=80, palette=DEFAULT)
    assert [row.cells[1].plain for row in found.rows] == ["—", "—"]


def test_signs_have_their_styles_and_numbers_stand_right() -> None:
    falls, rises = (row.cells[0] for row in table().rows[:2])
    assert [s.style for s in falls.spans] == [DEFAULT.falls]
    assert [s.style for s in rises.spans] == [DEFAULT.rises]
    assert falls.justify == "right"


@pytest.mark.parametrize("width", [20, 30, 40, 60, 80, 120, 200])
def test_columns_fill_the_width_and_the_prompt_is_last(width: int) -> None:
    found = table(width)
    assert sum(c.width + 2 for c in found.columns) == width
    assert found.columns[-1].title == "prompt"
    assert found.columns[0].title.startswith("−η·r_n")


def test_prompts_are_cut_on_one_line() -> None:
    long = unit("a", 1.0, prompt="What is\nthe 你好 of " + "x" * 99)
    cell = unit_rows([long], width=50, palette=DEFAULT).rows[0].cells[-1]
    assert cell.plain.startswith("What is the 你好 of x")
    assert cell.plain.endswith("…")
