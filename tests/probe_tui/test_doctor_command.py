"""`--doctor` and `--selftest` as a person or a CI system meets them."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree as xml

import checkpoints
import pytest
import written

from probe_engine.selftest import trial as selftest
from probe_engine.selftest.injection import Injection
from probe_tui.cli import main


@dataclass(frozen=True)
class Outcome:
    """What the command left."""

    code: int
    out: str
    err: str


Command = Callable[..., Outcome]


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A healthy checkpoint in `fine/`, the last one of a schedule that decays to 0 in `faulty/`."""
    folder = tmp_path_factory.mktemp("doctor")
    for name in ("fine", "faulty"):
        (folder / name).mkdir()
        checkpoints.run(folder / name)
    at_the_end = folder / "faulty" / CHECKPOINT
    written.edit_optimizer(
        at_the_end, lambda state: [group.update(lr=0.0) for group in state["param_groups"]]
    )
    return folder


CHECKPOINT = f"run/checkpoint-{checkpoints.STEP}"


@pytest.fixture
def command(
    here: Path, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> Command:
    monkeypatch.chdir(here)

    def run(*arguments: str) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["probe-tui", *arguments])
        with pytest.raises(SystemExit) as left:
            main()
        out, err = capfdbinary.readouterr()
        return Outcome(int(left.value.code or 0), out.decode(), err.decode())

    return run


def test_a_healthy_checkpoint(command: Command) -> None:
    outcome = command(f"fine/{CHECKPOINT}", "--doctor")
    assert outcome.code == 0
    assert "nothing is wrong" in outcome.out.splitlines()[-1]
    assert "… flow" in outcome.err
    assert "… flow" not in outcome.out


def test_a_fault_stands_first_with_its_remedy(command: Command) -> None:
    outcome = command(f"faulty/{CHECKPOINT}", "--doctor", "--fail-on", "warn")
    assert outcome.code == 1
    lines = outcome.out.splitlines()
    at = next(i for i, line in enumerate(lines) if "OPT007" in line)
    assert "remedy" in lines[at + 1]
    assert f"probe-tui faulty/{CHECKPOINT} --lr" in lines[at + 2]
    assert at < next(i for i, line in enumerate(lines) if line.startswith("Checkpoint:"))
    assert lines[-1].startswith("1 to mend")


def test_the_report_with_findings_only(command: Command) -> None:
    report = json.loads(command(f"fine/{CHECKPOINT}", "--doctor", "--json").out)
    assert report["findings"]
    assert report["verdict"] is None


def test_formats_of_ci_systems(command: Command) -> None:
    faulty = (f"faulty/{CHECKPOINT}", "--doctor", "--format")
    (line,) = command(*faulty, "github").out.splitlines()
    assert line.startswith("::warning title=OPT007")
    failed = xml.fromstring(command(*faulty, "junit", "--fail-on", "warn").out).findall(".//failure")
    assert len(failed) == 1
    assert command(f"fine/{CHECKPOINT}", "--json", "--format", "junit").code == 2


def test_a_checkpoint_without_rollouts_is_examined_on_random_tokens(command: Command, here: Path) -> None:
    shutil.copytree(here / "fine", here / "bare")
    shutil.rmtree(here / "bare" / "run" / "completions")
    outcome = command(f"bare/{CHECKPOINT}", "--doctor")
    assert outcome.code == 0, outcome.out
    assert "random tokens stand in" in outcome.out
    assert "GRAD" not in outcome.out.partition("Checkpoint:")[0]


def test_what_stops_the_run_does_not_hide_what_else_is_wrong(command: Command, here: Path) -> None:
    shutil.copytree(here / "faulty", here / "cut")
    weights = here / "cut" / CHECKPOINT / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    outcome = command(f"cut/{CHECKPOINT}", "--doctor")
    assert outcome.code == 3
    named = [line.split()[2] for line in outcome.out.splitlines() if line.startswith(("  ✗", "  !"))]
    assert named == ["CKPT002", "OPT007"]


def test_without_a_checkpoint_it_is_the_installation_that_is_looked_at(command: Command) -> None:
    outcome = command("--doctor")
    assert outcome.code == 0, outcome.out
    assert outcome.out.splitlines()[-1] == "gradient flows in this installation"
    assert not outcome.err.count("Warning")


@pytest.mark.parametrize("named", [True, False])
def test_the_selftest_fails_where_a_fault_is_missed(
    named: bool, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    fired = ("OPT007",) if named else ()
    injection = Injection("OPT007", "a fault", lambda _: pytest.fail("not run"))
    row = selftest.Trial(injection, fired, (), 0.1)
    monkeypatch.setattr(selftest, "selftest", lambda narrate: iter([row]))
    outcome = command("--selftest")
    assert outcome.code == int(not named)
    assert ("each named" in outcome.out) is named
    assert json.loads(command("--selftest", "--json").out)[0]["named"] is named


def test_an_injection_that_breaks_is_a_row_that_says_so() -> None:
    def broken(_: object) -> object:
        raise RuntimeError("no such module")

    row = selftest.trial(Injection("GRAD013", "a fault", broken), SimpleNamespace())  # type: ignore[arg-type]
    assert not row.named
    assert row.error == "RuntimeError: no such module"
