"""The stages as pictures."""

from __future__ import annotations

from rich.text import Text

from probe_tui.renderables.palette import DEFAULT
from probe_tui.renderables.stages import stage_rows
from probe_tui.state import STAGES, StageState

STAGE_LIST = (
    StageState("load", "done", 0, 1.9),
    StageState("rollouts", "done", 2, 0.4, worst="warn"),
    StageState("measure", "running", 3, 4, 1200, 4800, "tokens"),
    StageState("estimate"),
    StageState("realize", "stopped", 3, 70),
)


def drawn(width: int, paused: str | None = None, *stages: StageState) -> list[Text]:
    return stage_rows(stages or STAGE_LIST, width=width, palette=DEFAULT, now=9.0, paused=paused)


def picture(rows: list[Text]) -> str:
    return "\n" + "\n".join(row.plain.rstrip() for row in rows)


def test_what_is_done_at_work_waiting_and_stopped() -> None:
    assert (
        picture(drawn(60))
        == """
✓ Load                                                  1.9s
✓ Rollouts !                                            0.4s
▶ Measure    ━━━━━───────────────  25% 300 tokens/s 12s left
· Estimate
✗ Realize    stopped after 1m10s"""
    )


def test_a_narrow_column_keeps_the_bar() -> None:
    assert (
        picture(drawn(24))
        == """
✓ Load              1.9s
✓ Rollouts !        0.4s
▶ Measure    ━╸────  25%
· Estimate
✗ Realize    stopped"""
    )


def test_paused_in_the_middle_of_a_stage() -> None:
    assert picture(drawn(48, "")).splitlines()[3] == "‖ Measure    ━━━─────────  25% paused after 6.0s"


def test_paused_before_a_stage() -> None:
    lines = picture(drawn(48, "estimate")).splitlines()
    assert lines[3].startswith("▶ Measure")
    assert lines[4] == "‖ Estimate   paused"


def test_work_that_can_not_be_counted_shows_its_time() -> None:
    assert drawn(30, None, StageState("load", "running", began=4.0))[0].plain == "▶ Load   5.0s so far"


def test_progress_past_its_total_is_full() -> None:
    row = drawn(40, None, StageState("measure", "running", 3, 4, 900, 300, "tokens"))[0].plain
    assert "100%" in row
    assert "─" not in row


def test_all_stages_stand_in_a_column() -> None:
    rows = drawn(30, None, *(StageState(name, "done", 0, 1.0) for name in STAGES))
    assert {row.plain.index("1.0s") for row in rows} == {26}


def test_slow_work_has_a_rate_too() -> None:
    row = drawn(60, None, StageState("load", "running", 0, 8, 2, 6, "files"))[0].plain
    assert row.endswith("33% 0.25 files/s 16s left")
