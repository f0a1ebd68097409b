"""Each script from its command line to its JSON, as small as it can be."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import fused_vs_step
import growth
import literal
import memory
import per_sample
import pytest
import ragged
import startup
import torch
import x_estimators
from _batches import GENERATIONS
from _case import Case
from _peak import measured, peak
from _setting import Setting

SMALL = ["--model", "tiny", "--rounds", "1", "--json"]
TINY = Setting(model="tiny", sequences=8, tokens=12)
SIZE = ["--sequences", "8", "--tokens", "12"]
MIB = 2**20


@pytest.fixture
def printed(capsys: pytest.CaptureFixture[str]) -> Callable[..., dict[str, Any]]:
    """What a script prints, read as JSON."""

    def read(script: ModuleType, *arguments: str) -> dict[str, Any]:
        script.main(arguments)
        found = json.loads(capsys.readouterr().out)
        numbers = [value for value in found.values() if isinstance(value, float)]
        assert numbers
        assert all(math.isfinite(number) for number in numbers)
        return found

    return read


def test_fused_vs_step(printed: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused_vs_step, "peak", lambda run, _: {"step": 2 * MIB, "probe": 3 * MIB}[run])
    found = printed(fused_vs_step, *SMALL, *SIZE)
    assert found["memory_over_step"] == 1.5
    assert found["measure_over_step"] == pytest.approx(found["measure_seconds"] / found["step_seconds"])
    assert found["whole_over_step"] == pytest.approx(found["whole_seconds"] / found["step_seconds"])
    later = sum(found[f"probe_{stage}_over_step"] for stage in ("measure", "estimate", "realize", "judge"))
    assert found["verdict_over_step"] == pytest.approx(later)
    assert found["probe_rest_seconds"] > 0
    parts = later + sum(found[f"probe_{stage}_over_step"] for stage in ("flow", "rest"))
    assert parts <= found["whole_over_step"] < 2 * parts


def test_literal(printed: Callable[..., dict[str, Any]]) -> None:
    found = printed(literal, *SMALL, *SIZE, "--probe")
    assert found["largest_error"] < 1e-4
    assert found["literal_over_fused"] == pytest.approx(found["literal_seconds"] / found["fused_seconds"])
    whole = found["literal_seconds"] + found["literal_rescoring_seconds"]
    assert found["whole_over_probe"] == pytest.approx(whole / found["probe_seconds"])


def test_per_sample(printed: Callable[..., dict[str, Any]]) -> None:
    found = printed(per_sample, *SMALL, *SIZE)
    assert found["torch_func_largest_error"] < 1e-4
    assert found["torch_func_over_fused"] > 0


def test_growth(printed: Callable[..., dict[str, Any]]) -> None:
    found = printed(growth, *SMALL, "--tokens", "8", "--prompts", "2", "4", "--lengths", "8", "16")
    by_hand = math.log2(found["prompts_4_seconds"] / found["prompts_2_seconds"])
    assert found["exponent_over_prompts"] == pytest.approx(by_hand)


def test_ragged(printed: Callable[..., dict[str, Any]]) -> None:
    found = printed(ragged, *SMALL, "--sequences", "8", "--shortest", "12", "--longest", "33")
    assert found["tokens"] == "12 to 33, 180 together"
    assert found["ragged_over_even"] == pytest.approx(found["ragged_seconds"] / found["even_seconds"])
    assert found["ragged_flops_over_even"] >= 1  # attention grows with the square


def test_x_estimators(printed: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(x_estimators, "checkpoints", lambda *_: [])
    found = printed(x_estimators, *SMALL, *SIZE)
    assert 0.4 < found["extra_flops_over_step"] < 0.7
    assert found["extra_over_step"] == pytest.approx(
        (found["both_seconds"] - found["score_seconds"]) / found["step_seconds"]
    )


def test_startup(
    printed: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(startup, "ensure_demo", lambda: tmp_path)  # no checkpoint, but events there are
    found = printed(startup, "--rounds", "1", "--json")
    assert found["python_seconds"] < found["version_seconds"] < found["first_event_seconds"]


def test_memory(printed: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    """Peaks as a method would have them that is perfectly flat but for its kept vectors."""
    vector = 4 * sum(p.numel() for p in Case.of(TINY).policy.registry.parameters)

    def flat(run: str, setting: Setting) -> int:
        if run == "opacus":
            raise ChildProcessError("exit code 1: No module named 'opacus'")
        prompts = setting.sequences // GENERATIONS
        return 100 * MIB + (2 * prompts * vector if run == "fused_kept" else 0)

    monkeypatch.setattr(memory, "peak", flat)
    found = printed(memory, "--model", "tiny", "--json", "--prompts", "2", "6", *SIZE)
    assert (found["flat"], found["flat_kept"]) == (1.0, 1.0)
    assert found["fused_kept_6_prompts_gib"] > found["fused_kept_2_prompts_gib"]
    assert found["opacus_gib"] == "not run: exit code 1: No module named 'opacus'"
    assert found["probe_over_step"] == 1.0


def test_a_peak_is_what_was_held_at_once(case: Case) -> None:
    def in_turns(_: Case) -> None:
        for _ in range(3):
            torch.ones(64 * MIB, dtype=torch.uint8)

    def together(_: Case) -> None:
        _held = [torch.ones(64 * MIB, dtype=torch.uint8) for _ in range(3)]

    assert measured(in_turns, case) == pytest.approx(64 * MIB, abs=8 * MIB)
    assert measured(together, case) == pytest.approx(192 * MIB, abs=8 * MIB)
    assert measured(in_turns, case) == pytest.approx(64 * MIB, abs=8 * MIB)


def test_a_peak_is_taken_in_a_process_of_its_own() -> None:
    assert 0 < peak("step", TINY) < 1000 * MIB


def test_a_run_without_a_peak_says_how_it_ended(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    killed = tmp_path / "python"
    killed.write_text("#!/bin/sh\necho building >&2\necho out of memory >&2\nkill -9 $$\n")
    killed.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(killed))
    with pytest.raises(ChildProcessError, match="exit code -9: out of memory"):
        peak("step", TINY)


def test_an_exponent_is_the_one_that_it_was_made_with() -> None:
    sizes = [10, 20, 50, 400]
    assert growth.exponent(sizes, [3 * n**1.5 for n in sizes]) == pytest.approx(1.5)


def test_lengths_are_spread_from_end_to_end() -> None:
    lengths = ragged.spread(9, 16, 256)
    assert sorted(lengths) == [16 + 30 * i for i in range(9)]
    assert lengths != sorted(lengths)
