"""What `o` writes."""

from __future__ import annotations

import csv
import io
import os
from pathlib import Path
from typing import Any

import msgspec
import pytest
import unit_states
from finished_states import report, state
from msgspec.structs import replace

from probe_engine.errors import ProbeError
from probe_engine.report import Report
from probe_tui.export import UNIT_COLUMNS, export, units_csv

NAMES = ["report.json", "units.csv", "screen.svg", "report.html"]


def test_four_files_hold_what_the_screen_shows(tmp_path: Path) -> None:
    written = export(state(), tmp_path / "run" / "export", "<svg>δ</svg>")
    assert [path.name for path in written] == NAMES
    assert sorted(path.name for path in written[0].parent.iterdir()) == sorted(NAMES)
    assert msgspec.json.decode(written[0].read_bytes(), type=Report) == report()
    assert written[2].read_text("utf-8") == "<svg>δ</svg>"
    assert "δH₁ = -0.00125 nats per token slot" in written[3].read_text("utf-8")


def test_a_second_export_replaces_the_first(tmp_path: Path) -> None:
    export(state(), tmp_path, "old")
    export(state(units=[]), tmp_path, "new")
    assert (tmp_path / "screen.svg").read_text("utf-8") == "new"
    assert (tmp_path / "units.csv").read_text("utf-8").count("\n") == 1


def test_a_run_that_has_found_nothing_yet_can_be_exported(tmp_path: Path) -> None:
    from probe_tui.state import ScreenState

    assert [path.name for path in export(ScreenState(), tmp_path, "")] == NAMES


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline="")))


def test_the_table_reads_back_as_the_report_has_it() -> None:
    units = [*unit_states.units(5), unit_states.unit(5, r=None, prompt='two\nlines, "quoted"; ünïcode')]
    rows = rows_of(units_csv(units))
    assert len(rows) == 6
    for row, unit in zip(rows, units, strict=True):
        for column in UNIT_COLUMNS:
            value = getattr(unit, column)
            read: Any = row[column]
            if isinstance(value, int | float):
                read = float(read)
            assert read == ("" if value is None else value)


@pytest.mark.parametrize("prompt", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", '=HYPERLINK("http://x")'])
def test_a_spreadsheet_runs_no_prompt(prompt: str) -> None:
    (row,) = rows_of(units_csv([unit_states.unit(0, prompt=prompt, r=-1.5e-5)]))
    assert row["prompt"] == f"'{prompt}"
    assert row["contribution_r"] == "-1.5e-05"


def test_text_that_is_no_unicode_is_written_with_question_marks(tmp_path: Path) -> None:
    odd = unit_states.unit(0, prompt="a\udcffb")
    export(state(units=[odd]), tmp_path, "")
    (row,) = rows_of((tmp_path / "units.csv").read_text("utf-8"))
    assert row["prompt"] == "a?b"
    assert "a?b" in (tmp_path / "report.html").read_text("utf-8")


def test_a_folder_that_can_not_be_written_is_said_with_a_remedy(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(ProbeError) as raised:
        export(state(), tmp_path / "file" / "export", "")
    assert raised.value.code == "RUN003"
    assert str(tmp_path / "file") in raised.value.message
    assert raised.value.remedy


def test_a_full_disk_leaves_the_earlier_files_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    export(state(), tmp_path, "old")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def full(self: Path, data: bytes) -> int:
        with self.open("wb") as file:
            file.write(data[:10])
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(ProbeError, match="No space left on device"):
        export(state(verdict=replace(report().verdict, reason="other")), tmp_path, "new")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
