"""Figures beside their limits, on paper and in RESULTS.md."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import run_all
from _figures import Limit, show
from run_all import BENCHMARKS, Benchmark, Outcome, outcome, rendered, renew


@pytest.mark.parametrize(
    ("limit", "below", "at", "above"),
    [
        (Limit("≤", 2.0), True, True, False),
        (Limit("<", 2.0), True, False, False),
        (Limit("≥", 2.0), False, True, True),
    ],
    ids=str,
)
def test_a_limit_is_met_on_its_own_side(limit: Limit, below: bool, at: bool, above: bool) -> None:
    assert [limit.met(found) for found in (1.9, 2.0, 2.1)] == [below, at, above]


def test_json_has_figures_and_their_limits_alone(capsys: pytest.CaptureFixture[str]) -> None:
    show({"model": "tiny", "ratio": 1.5}, {"ratio": Limit("≤", 2), "absent": Limit("≤", 1)}, as_json=True)
    assert json.loads(capsys.readouterr().out) == {
        "model": "tiny",
        "ratio": 1.5,
        "limits": {"ratio": {"sign": "≤", "value": 2}},
    }


def test_results_say_what_was_met_missed_and_not_run() -> None:
    figures = {
        "model": "tiny",
        "rounds": 3,
        "first": 0.25,
        "good": 1.0,
        "bad": 3.0,
        "peer": "not run: no module",
        "limits": {"good": {"sign": "≤", "value": 1.15}, "bad": {"sign": "≤", "value": 2.0}},
    }
    lines = rendered(Outcome("python benchmarks/x.py", figures, 4.0, 0.5)).splitlines()
    assert lines[0] == "`python benchmarks/x.py`: 4 s, in which other programs used 0.50 cores"
    assert lines[2] == "model tiny, rounds 3"
    assert lines[6:] == [
        "| good | 1.000 | ≤ 1.15 | met |",
        "| bad | 3.000 | ≤ 2 | **missed** |",
        "| first | 0.250 | | |",
        "| peer | not run: no module | | |",
    ]


def test_a_run_that_fails_is_written_down_with_its_last_words() -> None:
    failed = outcome(Benchmark("startup", "", ("--nonsense",)), "--nonsense")
    text = rendered(failed)
    assert "**failed**: exit code 2" in text
    assert "--nonsense" in text.splitlines()[-1]


def test_only_the_sections_that_ran_are_renewed(tmp_path: Path) -> None:
    first, last = BENCHMARKS[0], BENCHMARKS[-1]
    path = tmp_path / "RESULTS.md"
    for one, text in ((last, "old"), (first, "kept"), (last, "new")):
        renew(path, one, f"## {one.title}\n\n{text}\n")
    written = path.read_text("utf-8")
    assert written == f"{run_all.PREFACE}\n## {first.title}\n\nkept\n\n## {last.title}\n\nnew\n"


def test_every_benchmark_has_its_script() -> None:
    assert all((run_all.HERE / f"{benchmark.name}.py").is_file() for benchmark in BENCHMARKS)


def test_runs_are_chosen_by_their_model() -> None:
    runs = ["--model tiny --full", "--model smollm2", ""]
    assert run_all.chosen(runs, "tiny") == ["--model tiny --full", ""]
    assert run_all.chosen(runs, None) == runs
