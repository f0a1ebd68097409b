"""The tab Realized: the verdict first, then what it rests on, and what another step would do."""

from __future__ import annotations

from typing import Any

import pytest
import unit_states
from finished_states import VERDICT, found, realized, report, state
from msgspec.structs import replace
from rich.cells import cell_len
from unit_states import Host

from probe_engine.report import Histograms
from probe_tui.renderables.palette import DEFAULT
from probe_tui.state import ScreenState
from probe_tui.widgets.number_panel import Line, NumberList
from probe_tui.widgets.realized import RealizedPanel
from probe_tui.widgets.realized_lines import SCALES, TAKEN, realized_lines

SERIOUS = [
    found("OPT010", "warn"),
    found("STAT001", "fail", value=0.04, threshold=0.3),
    found("STAT002", "warn", value=0.39, threshold=0.35),
    found("GRAD010", "fail"),
]


def lines(width: int = 80, scale: int = TAKEN, **changes: Any) -> list[Line]:
    return realized_lines(report(**changes), scale=scale, width=width, palette=DEFAULT)


def rows(width: int = 80, scale: int = TAKEN, **changes: Any) -> list[str]:
    return [row for line in lines(width, scale, **changes) for row in line.text.plain.split("\n")]


def place(words: str, among: list[str]) -> int:
    (index,) = (i for i, row in enumerate(among) if words in row)
    return index


def test_verdict_comparison_weights_what_if_histogram_and_units_in_this_order() -> None:
    shown = rows()
    assert shown[0] == "✓ AGREE: the measured change bears the prediction out"
    assert shown[1] == VERDICT.reason
    assert "predicted δH₁ -0.0012 nats/slot, 95% [-0.00156, -0.00084]" in shown
    order = [
        "δH₁ against ΔĤ, nats/slot, 95% intervals",
        "preconditioned step, held-out:",
        "δH₁ split E/U",
        "preconditioned step, same-batch:",
        "δH₁ V-statistic",
        "◀ ",
        "what if the step were",
        "held-out ESS/N 0.938  ✓ ok",
        "same-batch ESS/N",
        "log w, held-out",
        "units that eat the ESS",
    ]
    places = [place(words, shown) for words in order]
    assert places == sorted(places)


def test_the_gauges_have_both_lines_and_the_judged_khat_its_limit() -> None:
    shown = rows()
    gauge = place("held-out ESS/N 0.938", shown)
    assert shown[gauge + 1].startswith("█" * 40)
    assert "▴0.3 fail" in shown[gauge + 2]
    assert "▴0.5 warn" in shown[gauge + 2]
    assert shown[gauge + 3] == "ESS 240 of 256, k̂ 0.39 ✓ ok, limit 0.58"
    low = [realized("held_out", "snis", ess=12.5, ess_fraction=0.25, khat=1.2, N=50)]
    shown = rows(realized=low, findings=[found("STAT002", "fail", value=1.2, threshold=0.4)])
    assert place("held-out ESS/N 0.25  ✗ fail, below 0.3", shown)
    assert place("ESS 12.5 of 50, k̂ 1.2 ✗ fail, limit 0.4", shown)


def test_only_the_khat_that_was_judged_has_a_limit() -> None:
    other = [realized("held_out", "snis", khat=0.1), realized("same_batch", "snis")]
    shown = rows(realized=other)
    assert "ESS 240 of 256, k̂ 0.1" in shown
    assert "ESS 240 of 256, k̂ 0.39 ✓ ok, limit 0.58" in shown


def test_too_few_responses_for_a_khat_is_said() -> None:
    for row, why in (
        (realized("held_out", "snis", khat=None, N=12), "needs 25 weights, these are 12"),
        (realized("held_out", "snis", khat=None), "too few of the weights differ to fit their tail"),
    ):
        text = " ".join(" ".join(rows(120, realized=[row], findings=[found("STAT002", "skip")])).split())
        assert f"k̂ — ({why})" in text


def test_warnings_are_banners_that_say_what_to_do_worst_first() -> None:
    shown = rows(findings=SERIOUS)
    banners = [row for row in shown if row.startswith("▌ ")]
    assert banners == [
        "▌ ✗ fail STAT001 message of STAT001",
        "▌ what to do: remedy of STAT001",
        "▌ $ probe-tui --fix STAT001",
        "▌ ! warn OPT010 message of OPT010",
        "▌ what to do: remedy of OPT010",
        "▌ $ probe-tui --fix OPT010",
        "▌ ! warn STAT002 message of STAT002",
        "▌ what to do: remedy of STAT002",
        "▌ $ probe-tui --fix STAT002",
    ]
    assert shown.index(banners[0]) < place("δH₁ split E/U", shown)
    (banner,) = (line for line in lines(findings=SERIOUS) if "STAT001" in line.text.plain)
    assert banner.path == '.findings[] | select(.code=="STAT001")'
    assert banner.copied == "probe-tui --fix STAT001"


def test_what_if_says_at_once_that_a_smaller_step_has_a_larger_ess() -> None:
    fractions = []
    for scale in range(len(SCALES)):
        shown = rows(scale=scale)
        head = place("what if the step were", shown)
        fractions.append(float(shown[head + 2].split("≈")[1].split()[0]))
        assert shown[head + 6] == "approximate: log-weights scale to first order"
    assert fractions == sorted(fractions, reverse=True)
    # (Σw)²/(N·Σw²) with w = e^±x: Σw = 2·Σcosh x = 11.79, Σw² = 2·Σcosh 2x = 59.74.
    assert fractions[TAKEN] == pytest.approx(11.79**2 / (6 * 59.74), abs=0.001)
    assert (SCALES[0], SCALES[-1]) == (0.25, 4.0)
    smaller = rows(scale=0)
    assert " [¼] " in f" {smaller[place('what if the step were', smaller) + 1]} "
    assert "¼ × the step, --lr 2.5e-05" in smaller


FRESH = realized("held_out", "resample", ess=256.0, ess_fraction=1.0, khat=None, delta_h=-0.0123)


def test_fresh_responses_lead_and_the_weights_that_they_stand_in_for_are_shown_as_they_are() -> None:
    fresh = replace(FRESH, units=[replace(u, log_w=[]) for u in FRESH.units])
    verdict = replace(VERDICT, row=replace(VERDICT.row, estimator="resample"))
    old = [realized("held_out", e, ess=12.5, ess_fraction=0.05) for e in ("matched", "snis", "psis")]
    shown = rows(realized=[fresh, *old], verdict=verdict)
    assert "256 fresh responses, sampled after the step" in shown
    assert place("judged: preconditioned step, held-out pairing, resample", shown)
    assert place("ΔĤ resample", shown) < place("ΔĤ matched", shown)
    assert place("held-out ESS/N 0.05  ✗ fail, below 0.3", shown)
    assert place("ESS 12.5 of 256", shown)
    assert place("u2", shown) > place("units that eat the ESS", shown)


def test_each_measurement_stands_under_the_form_that_predicted_it() -> None:
    exact = realized("held_out", "per_decision", predicted=-0.0013, x_estimator="rao_blackwell")
    shown = rows(realized=[exact, realized("held_out", "matched")])
    order = ["δH₁ Rao-Blackwell", "ΔĤ per-decision", "δH₁ split E/U", "ΔĤ matched"]
    places = [place(words, shown) for words in order]
    assert places == sorted(places)


def test_the_units_without_which_the_ess_would_be_largest_come_first() -> None:
    shown = rows()
    first = place("units that eat the ESS", shown) + 1
    assert [row.split()[:5] for row in shown[first:]] == [
        ["88.7%", "1.07", "of", "2", "u2"],
        ["41.4%", "1.98", "of", "2", "u0"],
        ["40.1%", "1.64", "of", "2", "u4"],
    ]
    assert "Sort the digits" in shown[first]


def test_an_ess_that_is_no_number_is_left_out() -> None:
    row = realized("held_out", "snis")
    row = replace(row, units=[replace(row.units[0], ess=None), *row.units[1:]])
    assert not [r for r in rows(realized=[row]) if " u0 " in r]


def test_the_histogram_stands_beside_the_gauges_where_there_is_room() -> None:
    wide, narrow = rows(86), rows(82)
    assert place("log w, held-out", wide) == place("what if the step were", wide)
    assert place("log w, held-out", narrow) > place("what if the step were", narrow)
    assert [line for line in lines(82) if line.path == ".histograms.log_w"]


@pytest.mark.parametrize("width", [40, 54, 74, 84, 86, 120, 200])
def test_no_row_is_wider_than_the_panel(width: int) -> None:
    assert max(cell_len(row) for row in rows(width, findings=SERIOUS)) <= width


@pytest.mark.parametrize("width", [54, 74, 86, 120])
def test_no_word_is_cut(width: int) -> None:
    assert not [row for row in rows(width, findings=SERIOUS) if "…" in row and "Sort the digits" not in row]


def test_every_line_with_a_number_says_where_it_is_and_what_is_copied() -> None:
    for line in lines(findings=SERIOUS):
        assert bool(line.path) == bool(line.copied)
    assert lines()[-1].path.endswith(".ess")


def test_parts_that_are_missing_leave_no_gap() -> None:
    shown = rows(histograms=Histograms(), realized=[realized("same_batch", "snis")], verdict=None)
    assert shown[0] == "The verdict comes with the stage judge."
    for absent in ("log w", "what if", "units that eat", "sweep"):
        assert absent not in "\n".join(shown)
    assert not [i for i in range(len(shown) - 1) if shown[i] == shown[i + 1] == ""]
    assert lines(realized=[], verdict=None) == []


@pytest.mark.parametrize("size", [(60, 13), (80, 17), (90, 34)])
@pytest.mark.asyncio
async def test_keys_change_the_what_if_and_the_cursor_reaches_every_number(size: tuple[int, int]) -> None:
    app = Host(RealizedPanel(), state(findings=SERIOUS))
    async with app.run_test(size=size) as pilot:
        numbers = app.query_one(NumberList)
        numbers.focus()
        await pilot.pause()
        assert app.panel.json_path() == ".verdict"
        assert app.panel.copy_text() == f"agree: {VERDICT.reason}"
        reached = {app.panel.json_path()}
        for _ in range(len(numbers.options)):
            numbers.action_cursor_down()
            reached.add(app.panel.json_path())
        while app.panel.json_path() != ".realized[0].units[].log_w":
            numbers.action_cursor_up()
        assert '.findings[] | select(.code=="STAT001")' in reached
        assert {".estimates.split.delta_h1", ".realized[5].delta_h", ".realized[3].khat"} <= reached
        before = app.panel.copy_text()
        assert before.startswith("1 × the step, --lr 0.0001: held-out ESS/N ≈ 0.388")
        await pilot.press("left")
        assert app.panel.copy_text().startswith("¾ × the step, --lr 7.5e-05: ")
        await pilot.press(*["right"] * len(SCALES))
        assert app.panel.copy_text().startswith("4 × the step, --lr 0.0004: ")
        assert app.panel.json_path() == ".realized[0].units[].log_w"


@pytest.mark.asyncio
async def test_the_mouse_chooses_a_scale() -> None:
    app = Host(RealizedPanel(), state())
    async with app.run_test(size=(90, 60)) as pilot:
        await pilot.pause()
        shown = [
            row for option in app.query_one(NumberList).options for row in str(option.prompt).split("\n")
        ]
        y = place("what if the step were", shown) + 1
        await pilot.click(NumberList, offset=(1 + shown[y].index("½"), y))
        await pilot.pause()
        assert app.panel.json_path() == ".realized[0].units[].log_w"
        assert app.panel.copy_text().startswith("½ × the step, --lr 5e-05: ")


@pytest.mark.parametrize(
    ("status", "word"), [("agree", ""), ("disagree", "✗"), ("inconclusive", "?"), ("unreliable", "!")]
)
def test_a_verdict_that_is_no_plain_yes_asks_for_attention(status: Any, word: str) -> None:
    assert RealizedPanel().attention(state(verdict=replace(VERDICT, status=status))) == word
    assert RealizedPanel().attention(ScreenState()) == ""


@pytest.mark.asyncio
async def test_before_the_step_is_taken_it_says_what_takes_it() -> None:
    app = Host(RealizedPanel(), unit_states.state_of())
    async with app.run_test(size=(60, 13)) as pilot:
        await pilot.pause()
        said = " ".join(str(app.query_one(NumberList).options[0].prompt).split())
        assert said == "Comes with the stage realize; measure is at work."
        assert app.panel.json_path() == ".realized"
