"""The tab Checks: causes on top, what follows from them indented below."""

from __future__ import annotations

import pytest
from finished_states import found, state
from textual.widgets import OptionList
from unit_states import Host

from probe_tui.widgets.checks import ChecksPanel


@pytest.mark.asyncio
@pytest.mark.parametrize("width", [60, 120])
async def test_consequences_stand_under_their_cause(width: int) -> None:
    findings = [
        found("OPT009", "warn"),
        found("OPT004", "warn", cause="OPT009"),
        found("GRAD013", "fail"),
        found("GRAD006", "fail", cause="GRAD013"),
        found("GRAD007", "fail", cause="GRAD013"),
    ]
    panel = ChecksPanel()
    async with Host(panel, state(findings=findings)).run_test(size=(width, 40)) as pilot:
        await pilot.pause()
        options = panel.query_one(OptionList)
        rows = [str(options.get_option_at_index(i).prompt) for i in range(options.option_count)]
        answer = rows[: next(i for i, row in enumerate(rows) if row.startswith("NEEDS"))]
        assert " ".join(" ".join(answer).split()).startswith("✗ Gradient flows, 28 of 28 parameters, X and Y")
        del rows[: len(answer)]
        assert rows[0].startswith("NEEDS ATTENTION")
        assert [(row.startswith("  ↳ "), row.split("GRAD")[-1][:3]) for row in rows[1:4]] == [
            (False, "013"),
            (True, "006"),
            (True, "007"),
        ]
        assert "OPT009" in rows[4]
        assert rows[5].startswith("  ↳ ")
        assert "OPT004" in rows[5]
        assert panel.selected is not None
        assert panel.selected.code == "GRAD013"
