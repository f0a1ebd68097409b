"""One prompt in full: what was asked, what was answered, and what each answer weighs."""

from __future__ import annotations

from rich.text import Text

from probe_engine.report import ResponseRow, UnitRow
from probe_tui.renderables.cells import paragraph, row
from probe_tui.renderables.numbers import number
from probe_tui.renderables.palette import Palette

ROLES = {"E": "in E: its entropy is evaluated", "U": "in U: it makes the update"}
INDENT = "  "


def prompt_detail(unit: UnitRow, *, width: int, palette: Palette, nats: str = "nats") -> list[Text]:
    """The prompt, its contributions and each response with its numbers, wrapped.

    Args:
        nats: unit of contributions; S is in nats whatever the weighting.
    """
    rewards = f"reward {number(unit.reward_mean)} ± {number(unit.reward_std)} SD"
    rows = [
        row(width, [(f"prompt {unit.id}", palette.accent), (f"  {ROLES[unit.role]}", palette.muted)]),
        *_indented(width, unit.prompt),
        *paragraph(width, f"{unit.G} responses, {unit.tokens} tokens, {rewards}", palette.muted),
    ]
    for symbol, value in (("+η·s_n", unit.contribution_s), ("−η·r_n", unit.contribution_r)):
        if value is not None:
            moves = "entropy falls" if value < 0 else "entropy rises" if value > 0 else "no change"
            rows.append(
                row(width, [(f"{symbol} {number(value)} {nats}: ", ""), (moves, palette.sign(value))])
            )
    norms = (
        f"‖X‖ {number(unit.x_norm)} · ‖Y‖ {number(unit.y_norm)} · ‖PY‖ {number(unit.py_norm)} · "
        f"X·PY {number(unit.x_dot_py)}"
    )
    rows += paragraph(width, norms, palette.muted)
    if unit.covariance is not None and unit.discriminant is not None:
        parts = f"covariance {number(unit.covariance)} · discriminant {number(unit.discriminant)}"
        rows += paragraph(width, f"its part of the baselines: {parts}", palette.muted)
    for index, response in enumerate(unit.responses):
        rows += [
            Text(),
            *_response(response, f"response {index + 1} of {len(unit.responses)}", width, palette),
        ]
    return rows


def _response(response: ResponseRow, name: str, width: int, palette: Palette) -> list[Text]:
    ended = "terminated" if response.terminated else "cut off"
    numbers = (
        f"reward {number(response.reward)} · advantage {number(response.advantage)} · "
        f"S {number(response.S)} nats · weight c {number(response.c)} · {response.length} tokens, {ended}"
    )
    return [
        row(width, [(name, palette.accent)]),
        *paragraph(width, numbers, palette.muted),
        *(
            _indented(width, response.text)
            if response.text
            else [row(width, [(f"{INDENT}(empty)", palette.muted)])]
        ),
    ]


def _indented(width: int, text: str) -> list[Text]:
    return paragraph(width, text, first=INDENT, indent=INDENT)
