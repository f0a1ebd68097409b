"""One prompt in full."""

from __future__ import annotations

from msgspec.structs import replace

from probe_engine.report import ResponseRow, UnitRow
from probe_tui.renderables.palette import DEFAULT
from probe_tui.renderables.prompt import prompt_detail

UNIT = UnitRow(
    id="58cd1b7c",
    prompt="Sort:\n  46561\x1b[2J",
    role="E",
    G=2,
    tokens=10,
    reward_mean=0.5,
    reward_std=0.707,
    S=[-0.9, -3.0],
    advantages=[0.5, -0.5],
    x_norm=1.06,
    y_norm=0.0824,
    py_norm=706.0,
    x_dot_py=-273.0,
    contribution_s=-0.00326,
    contribution_r=0.001,
    responses=[
        ResponseRow(text="14566", length=6, terminated=True, reward=1.0, advantage=0.5, S=-0.915, c=0.402),
        ResponseRow(text="", length=4, terminated=False, reward=0.0, advantage=-0.5, S=None, c=-0.402),
    ],
)


def test_text_contributions_and_every_response_with_its_numbers() -> None:
    rows = prompt_detail(UNIT, width=100, palette=DEFAULT, nats="nats/slot")
    assert [row.plain for row in rows] == [
        "prompt 58cd1b7c  in E: its entropy is evaluated",
        "  Sort:",
        "    46561␛[2J",
        "2 responses, 10 tokens, reward 0.5 ± 0.707 SD",
        "+η·s_n -0.00326 nats/slot: entropy falls",
        "−η·r_n 0.001 nats/slot: entropy rises",
        "‖X‖ 1.06 · ‖Y‖ 0.0824 · ‖PY‖ 706 · X·PY -273",
        "",
        "response 1 of 2",
        "reward 1 · advantage 0.5 · S -0.915 nats · weight c 0.402 · 6 tokens, terminated",
        "  14566",
        "",
        "response 2 of 2",
        "reward 0 · advantage -0.5 · S — nats · weight c -0.402 · 4 tokens, cut off",
        "  (empty)",
    ]


def test_its_part_of_the_baselines_stands_below_the_norms() -> None:
    unit = replace(UNIT, covariance=-0.0196, discriminant=0.00177)
    rows = [row.plain for row in prompt_detail(unit, width=76, palette=DEFAULT)]
    norms = next(i for i, row in enumerate(rows) if row.startswith("‖X‖"))
    assert rows[norms + 1] == "its part of the baselines: covariance -0.0196 · discriminant 0.00177"


def test_narrow_screens_wrap_it() -> None:
    rows = prompt_detail(UNIT, width=30, palette=DEFAULT)
    assert all(row.cell_len <= 30 for row in rows)
    said = " ".join(" ".join(row.plain for row in rows).split())
    assert "weight c 0.402 · 6 tokens, terminated" in said
