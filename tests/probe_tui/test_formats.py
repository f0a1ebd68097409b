"""The doctor's findings for people and for CI systems, and the self-test's table."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree as xml

import msgspec
import pytest

from probe_engine.assembly import empty
from probe_engine.report import Finding, Report, finding
from probe_engine.spec import RunSpec
from probe_tui.formats.diagnosis import count_line, diagnosis_lines
from probe_tui.formats.github import github
from probe_tui.formats.junit import junit
from probe_tui.formats.selftest import trial_line, trials_json, trials_summary

CUT = finding("GRAD013", "fail", "layers.1: 100% cut,\nhere")
SO = msgspec.structs.replace(finding("GRAD007", "fail", "9 are None"), cause="GRAD013")
STALE = finding("OPT010", "warn", "ratio 5")
FINE = msgspec.structs.replace(finding("CKPT006", "ok", "3 tensors, all finite"), duration_ms=2500.0)
WAITS = finding("GRAD004", "skip", "waits for GRAD003")
BROKEN = finding("RUN001", "crash", "an error \x07 that no check foresaw")


def report(*findings: Finding) -> Report:
    return msgspec.structs.replace(empty(), findings=list(findings))


EVERYTHING = report(FINE, STALE, CUT, SO, WAITS, BROKEN)


def lines_with(text: str, report: Report, **options: Any) -> list[str]:
    return [line for line in diagnosis_lines(report, **options) if text in line]


def test_the_diagnosis_begins_with_causes_and_folds_what_follows() -> None:
    lines = diagnosis_lines(EVERYTHING)
    order = [next(i for i, line in enumerate(lines) if code in line) for code in ("GRAD013", "GRAD007")]
    assert order == sorted(order)
    assert order[1] < next(i for i, line in enumerate(lines) if "OPT010" in line)
    assert "so" in lines[order[1]].split()
    assert lines[-1].startswith("3 to mend (findings: 1 ok, 1 warn, 2 fail, 1 crash, 1 skip)")
    assert not lines_with("waits for GRAD003", EVERYTHING)
    assert lines_with("waits for GRAD003", EVERYTHING, verbose=True)


def test_a_slow_check_says_so_and_the_rest_only_where_asked() -> None:
    assert "(slow: 2.5 s)" in lines_with("CKPT006", EVERYTHING)[0]
    quick = report(msgspec.structs.replace(FINE, duration_ms=1.0))
    assert not lines_with("CKPT006", quick)
    assert lines_with("CKPT006", quick, verbose=True)


def test_the_count_at_the_end() -> None:
    assert count_line([FINE, WAITS]).startswith("nothing is wrong")
    assert count_line([STALE]).startswith("1 to mend")


def test_github_annotates_causes_and_escapes_what_the_runner_would_read() -> None:
    lines = github(EVERYTHING, RunSpec()).splitlines()
    assert [line.split(" ", 1)[0] for line in lines] == ["::error", "::error", "::warning"]
    assert "layers.1: 100%25 cut,%0Ahere" in "".join(lines)
    assert "title=GRAD013 graph inside the model::" in "".join(lines)
    assert "GRAD007" not in "".join(lines)
    assert "GRAD013" not in github(EVERYTHING, RunSpec(ignore=("GRAD",)))
    assert github(EVERYTHING, RunSpec(select=("OPT",))).count("\n") == 1


@pytest.mark.parametrize(
    ("options", "failures", "errors"),
    [({}, 1, 1), ({"fail_on": "warn"}, 2, 1), ({"fail_on": "never"}, 0, 0), ({"ignore": ("GRAD",)}, 0, 1)],
)
def test_junit_counts_as_the_exit_code_does(options: dict[str, Any], failures: int, errors: int) -> None:
    root = xml.fromstring(junit(EVERYTHING, RunSpec(**options)))
    suites = list(root)
    assert sum(int(suite.attrib["failures"]) for suite in suites) == failures
    assert sum(int(suite.attrib["errors"]) for suite in suites) == errors
    assert sum(int(suite.attrib["tests"]) for suite in suites) == len(EVERYTHING.findings)
    assert len(root.findall(".//failure")) == failures
    skipped = {case.attrib["name"][:7] for case in root.iter("testcase") if case.find("skipped") is not None}
    assert skipped == {"GRAD007", "GRAD004"}


def row(code: str, *fired: str, error: str = "") -> Any:
    return SimpleNamespace(
        injection=SimpleNamespace(code=code, fault="a fault"),
        roots=fired,
        folded=("GRAD007",),
        named=fired == (code,),
        error=error,
        seconds=0.25,
    )


def test_the_table_of_the_selftest() -> None:
    rows = [
        row("GRAD013", "GRAD013"),
        row("OPT007", "OPT007", "OPT010"),
        row("ENV001"),
        row("ENV002", error="E"),
    ]
    lines = [trial_line(r) for r in rows]
    assert [line[:8] for line in lines] == ["✓ named ", "✗ others", "✗ missed", "✗ missed"]
    assert "(so GRAD007)" in lines[0]
    assert "→ nothing" in lines[2]
    assert "3 not named" in trials_summary(rows)
    assert "each named" in trials_summary(rows[:1])
    assert [r["named"] for r in json.loads(trials_json(rows))] == [True, False, False, False]
