"""The command as a person or a script meets it: streams, exit codes, run folder, interruption, imports."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import checkpoints
import jsonschema
import msgspec
import pytest

from probe_engine import events
from probe_engine.assembly import empty, fold
from probe_engine.report import encode
from probe_engine.spec import RunSpec
from probe_tui.cli import ELSEWHERE, main

COMMAND = (sys.executable, "-m", "probe_tui")
ASCII = {"LC_ALL": "C", "PYTHONIOENCODING": "ascii", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
"""A terminal that knows no Unicode."""


@dataclass(frozen=True)
class Outcome:
    """What a run of the command left."""

    code: int
    out: bytes
    err: str

    @property
    def report(self) -> dict[str, Any]:
        """Standard output, which must be one JSON object and nothing else."""
        report: dict[str, Any] = json.loads(self.out.decode("utf-8"))
        return report


@contextmanager
def started(*arguments: str, cwd: Path, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process that is gone afterwards, whatever becomes of the test."""
    with subprocess.Popen(
        arguments,
        cwd=cwd,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def ran(*arguments: str, cwd: Path, **environment: str) -> Outcome:
    with started(*arguments, cwd=cwd, **environment) as process:
        out, err = process.communicate(timeout=300)
    return Outcome(process.returncode, out, err.decode("utf-8", "replace"))


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory with a LoRA checkpoint, its rollouts and a configuration file."""
    folder = tmp_path_factory.mktemp("command")
    checkpoints.run(folder)
    (folder / "probe.toml").write_text('weighting = "sequence"\nmax-prompts = 7\n')
    return folder


CHECKPOINT = f"run/checkpoint-{checkpoints.STEP}"


@pytest.fixture(scope="module")
def as_json(here: Path) -> Outcome:
    """A whole run, `--json --out RUN`, on a terminal without Unicode."""
    arguments = (*COMMAND, CHECKPOINT, "--json", "--out", "RUN", "--lr", "1e-5")
    return ran(*arguments, cwd=here, PROBE_MICRO_BATCH="5", PROBE_MAX_PROMPTS="8", **ASCII)


@pytest.fixture
def command(
    here: Path, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> Callable[..., Outcome]:
    """The command in this process, which spares the imports."""
    monkeypatch.chdir(here)

    def run(*arguments: str) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["probe-tui", *arguments])
        with pytest.raises(SystemExit) as left:
            main()
        out, err = capfdbinary.readouterr()
        return Outcome(int(left.value.code or 0), out, err.decode())

    return run


def lasting(report: dict[str, Any]) -> dict[str, Any]:
    """The report without what may differ between two runs of the same seed."""
    kept = {key: value for key, value in report.items() if key not in ("timings", "environment", "run")}
    kept["findings"] = [{k: v for k, v in f.items() if k != "duration_ms"} for f in report["findings"]]
    kept["forecast"] = report["forecast"] and report["forecast"] | {"measured": None}
    kept["config"] = {name: setting for name, setting in report["config"].items() if name != "out"}
    return kept


def test_json_is_one_object_of_the_shipped_schema(as_json: Outcome, command: Callable[..., Outcome]) -> None:
    schema = command("--json-schema").report
    jsonschema.validate(as_json.report, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(as_json.report | {"units": 3}, schema)
    assert as_json.code == as_json.report["run"]["exit_code"] == 0
    assert as_json.report["run"]["status"] == "complete"
    assert as_json.report["verdict"]["status"] in ("agree", "disagree", "inconclusive", "unreliable")
    assert "δH₁" in as_json.out.decode("utf-8")
    assert "VERDICT" in as_json.err


def test_the_report_tells_where_each_option_came_from(as_json: Outcome) -> None:
    config = as_json.report["config"]
    assert config["weighting"] == {"value": "sequence", "origin": "file"}
    assert config["max_prompts"] == {"value": 8, "origin": "environment"}
    assert config["micro_batch"] == {"value": 5, "origin": "environment"}
    assert config["lr"] == {"value": 1e-5, "origin": "flag"}
    assert config["seed"] == {"value": 0, "origin": "default"}


def test_the_run_folder_holds_the_run(as_json: Outcome, here: Path) -> None:
    run = here / "RUN"
    assert {"spec.json", "events.jsonl", "report.json"} <= {path.name for path in run.iterdir()}
    assert (run / "report.json").read_bytes() == as_json.out
    decoded = [events.decode(line) for line in (run / "events.jsonl").read_bytes().splitlines()]
    report = empty()
    for event in decoded:
        assert event is not None
        report = fold(report, event)
    assert encode(report) == as_json.out


def test_the_same_seed_gives_the_same_report_and_another_seed_another_split(
    as_json: Outcome, command: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROBE_MICRO_BATCH", "5")
    monkeypatch.setenv("PROBE_MAX_PROMPTS", "8")
    arguments = (CHECKPOINT, "--json", "--lr", "1e-5")
    assert lasting(command(*arguments).report) == lasting(as_json.report)
    other = command(*arguments, "--seed", "1").report
    roles = [[unit["role"] for unit in report["units"]] for report in (as_json.report, other)]
    assert roles[0] != roles[1]
    assert other["estimates"]["split"] != as_json.report["estimates"]["split"]


def test_the_worker_gives_the_same_report(as_json: Outcome, here: Path) -> None:
    run = here / "WORKER"
    run.mkdir()
    shutil.copy(here / "RUN" / "spec.json", run)
    worker = ran(sys.executable, "-m", "probe_engine", "WORKER", cwd=here)
    assert worker.code == 0
    assert lasting(json.loads((run / "report.json").read_bytes())) == lasting(as_json.report)


@pytest.mark.parametrize("spec", [None, b"", b"{", b"\xff", b'{"spec": {"seed": "x"}, "origins": {}}'])
def test_the_worker_refuses_a_folder_without_a_spec(
    spec: bytes | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from probe_engine.__main__ import main as worker

    if spec is not None:
        (tmp_path / "spec.json").write_bytes(spec)
    assert worker([str(tmp_path)]) == 3
    assert "expected the spec of a run" in capsys.readouterr().err


def test_a_second_run_does_not_overwrite_the_first(
    as_json: Outcome, command: Callable[..., Outcome], here: Path
) -> None:
    before = {path.name: path.read_bytes() for path in (here / "RUN").iterdir()}
    refused = command(CHECKPOINT, "--json", "--out", "RUN", "--seed", "3")
    assert (refused.code, refused.out) == (3, b"")
    assert "RUN003" in refused.err
    assert "holds a run already" in refused.err
    assert {path.name: path.read_bytes() for path in (here / "RUN").iterdir()} == before


def test_a_run_folder_that_can_not_be_written(command: Callable[..., Outcome], here: Path) -> None:
    (here / "a-file").write_text("")
    for out in ("a-file", "a-file/run", "/proc/no/such/place"):
        refused = command(CHECKPOINT, "--json", "--out", out)
        assert (refused.code, refused.out) == (3, b"")
        assert "RUN003" in refused.err
        assert "--out" in refused.err
        assert "Traceback" not in refused.err


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--max-prompts", "7"], 0),
        (["--max-prompts", "7", "--fail-on", "warn"], 1),
        (["--max-prompts", "7", "--fail-on", "warn", "--ignore", "ROLL014,STAT,OPT010"], 0),
        (["--max-prompts", "2"], 1),
        (["--max-prompts", "2", "--fail-on", "never"], 0),
        (["--max-prompts", "2", "--select", "GRAD,CKPT"], 0),
    ],
)
def test_exit_codes_of_finished_runs(
    arguments: list[str], code: int, command: Callable[..., Outcome]
) -> None:
    """ROLL014 warns below 8 prompts and fails below 3."""
    outcome = command(CHECKPOINT, "--json", *arguments)
    assert outcome.code == outcome.report["run"]["exit_code"] == code
    assert outcome.report["run"]["status"] == "complete"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["no/such/folder"], "CKPT001"),
        ([CHECKPOINT, "--rollouts", "no/such/file"], "ROLL013"),
        ([CHECKPOINT, "--base", "elsewhere"], "CKPT003"),
    ],
)
def test_what_can_not_be_read_exits_with_3_and_a_partial_report(
    arguments: list[str], said: str, command: Callable[..., Outcome]
) -> None:
    outcome = command(*arguments, "--json")
    assert outcome.code == 3
    assert outcome.report["run"] == {"folder": None, "status": "partial", "exit_code": 3}
    assert outcome.report["findings"][-1]["code"] == said
    assert "Traceback" not in outcome.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "CHECKPOINT"),
        ([CHECKPOINT, "--no-such-option"], "No such option"),
        ([CHECKPOINT, "another"], "unexpected extra argument"),
        ([CHECKPOINT, "--micro-batch", "0"], "--micro-batch (from the flag)"),
        ([CHECKPOINT, "--weighting", "heavy"], "--weighting (from the flag)"),
        ([CHECKPOINT, "--memory-budget", "lots"], "--memory-budget"),
        ([CHECKPOINT, "--memory-budget", "9" * 400], "--memory-budget"),
        ([CHECKPOINT, "--lr", "nan"], "--lr"),
        ([CHECKPOINT, "--json", "--device", "cuda:77"], "--device"),
        ([CHECKPOINT, "--prompts", "prompts.jsonl"], "--reward"),
        ([CHECKPOINT, "--demo"], "--demo"),
        (["--explain", "NOPE123"], "NOPE123"),
    ],
)
def test_usage_errors_exit_with_2(arguments: list[str], said: str, command: Callable[..., Outcome]) -> None:
    outcome = command(*arguments)
    assert outcome.code == 2
    assert said in outcome.err
    assert "Traceback" not in outcome.err


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("probe.toml", "seed = 'x'", "--seed (from the file)"),
        ("probe.toml", "sead = 1", "'sead' from the file"),
        ("probe.toml", "[[[", "not valid TOML"),
        ("probe.toml", f"a = {'[' * 5000}", "not valid TOML"),
        ("pyproject.toml", "[tool]\nprobe-tui = 3", "expected a table of options"),
        ("pyproject.toml", "tool = 3", "expected a table of options"),
    ],
)
def test_a_wrong_configuration_file_exits_with_2(
    file: str,
    text: str,
    said: str,
    command: Callable[..., Outcome],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / file).write_text(text)
    monkeypatch.chdir(tmp_path)
    outcome = command("anything")
    assert outcome.code == 2
    assert said in outcome.err


def test_a_wrong_environment_variable_exits_with_2(
    command: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROBE_SPLIT", "1.5")
    outcome = command(CHECKPOINT)
    assert outcome.code == 2
    assert "--split (from the environment)" in outcome.err


def test_plain_text_on_a_terminal_without_unicode(here: Path) -> None:
    outcome = ran(*COMMAND, CHECKPOINT, "--plain", "--max-prompts", "7", cwd=here, **ASCII)
    text = outcome.out.decode("ascii")
    assert outcome.code == 0
    assert outcome.err == ""
    assert text.index("load") < text.index("ROLL014") < text.index("U-statistic") < text.index("VERDICT")
    assert re.search(r"VERDICT (agree|disagree|inconclusive|unreliable) \(adamw step, held-out", text)


@pytest.fixture(scope="module")
def long_rollouts(here: Path) -> Path:
    """Many seconds of work."""
    return checkpoints.native(here / "long.jsonl", checkpoints.rows(prompts=1000))


def test_ctrl_c_keeps_what_was_found(here: Path, long_rollouts: Path) -> None:
    arguments = ("--json", "--rollouts", long_rollouts.name, "--max-prompts", "1000")
    with started(*COMMAND, CHECKPOINT, *arguments, cwd=here) as process:
        assert process.stderr is not None
        told = []
        for line in process.stderr:
            told.append(line.decode())
            if "… measure" in told[-1]:
                process.send_signal(signal.SIGINT)
                break
        out, rest = process.communicate(timeout=60)
    outcome = Outcome(process.returncode, out, "".join(told) + rest.decode())
    assert re.search(r"… measure: [\d,]+ of [\d,]+ tokens, [\d,]+ tokens/s, \d+ s left", outcome.err)
    assert outcome.code == 130
    assert "Traceback" not in outcome.err
    report = outcome.report
    assert report["run"] == {"folder": None, "status": "partial", "exit_code": 130}
    assert 0 < len(report["units"]) < 1000
    assert report["gradient_flow"]["x_non_none"] == report["checkpoint"]["trainable_tensors"]
    assert report["verdict"] is None


def test_ctrl_c_while_libraries_are_imported(here: Path) -> None:
    """An interrupt inside numpy's or torch's import comes out of it as all kinds of errors."""
    program = (
        "import os, signal, sys\n"
        "class Interrupt:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'torch':\n"
        "            os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Interrupt())\n"
        f"sys.argv = ['probe-tui', {CHECKPOINT!r}, '--json']\n"
        "from probe_tui.cli import main\n"
        "main()\n"
    )
    outcome = ran(sys.executable, "-c", program, cwd=here)
    assert (outcome.code, outcome.out, outcome.err) == (130, b"", "")


def test_a_reader_that_leaves_is_no_error(here: Path) -> None:
    with started(*COMMAND, CHECKPOINT, "--plain", "--out", "LEFT", cwd=here) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline().startswith(b"probe-tui")
        process.stdout.close()
        assert process.wait(timeout=120) == 130
        assert process.stderr.read() == b""
    report = json.loads((here / "LEFT" / "report.json").read_bytes())
    assert report["run"]["status"] == "partial"
    assert "RUN001" not in [finding["code"] for finding in report["findings"]]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_behind_standard_output_is_said(here: Path) -> None:
    with open("/dev/full", "wb") as full:
        arguments = [*COMMAND, "--json-schema"]
        done = subprocess.run(arguments, cwd=here, stdout=full, stderr=subprocess.PIPE, check=False)
    assert done.returncode == 3
    assert b"RUN003" in done.stderr
    assert b"No space left" in done.stderr
    assert b"Traceback" not in done.stderr


def test_pages_need_no_torch_and_nobody_else_prints_among_the_data(here: Path) -> None:
    (here / "noisy.py").write_text(
        "import os\n"
        "def reward(prompts, completions, **_):\n"
        "    print('printed')\n"
        "    os.write(1, b'written')\n"
        "    return [float(len(text)) for text in completions]\n"
    )
    (here / "prompts.jsonl").write_text("".join(f'{{"prompt": "a{c}"}}\n' for c in "bcdefghi"))
    program = (
        "import sys\n"
        "from probe_tui.cli import main\n"
        "def run(*arguments):\n"
        "    sys.argv = ['probe-tui', *arguments]\n"
        "    try:\n"
        "        main()\n"
        "    except SystemExit as left:\n"
        "        assert left.code in (0, None), arguments\n"
        "run('--version')\n"
        "run('--help')\n"
        "run('--list-checks')\n"
        "run('--json-schema')\n"
        "run('--explain', 'GRAD001')\n"
        "heavy = {'torch', 'transformers', 'peft', 'numpy', 'textual'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "print('=====')\n"
        f"run({CHECKPOINT!r}, '--json', '--fail-on', 'never',\n"
        "    '--prompts', 'prompts.jsonl', '--reward', 'noisy:reward', '--num-generations', '3')\n"
        "assert 'torch' in sys.modules\n"
        "assert 'textual' not in sys.modules\n"
    )
    outcome = ran(sys.executable, "-c", program, cwd=here)
    assert outcome.code == 0, outcome.err
    report = json.loads(outcome.out.decode().split("=====")[1])
    assert report["rollouts"]["sampled_here"]
    assert report["verdict"]
    assert "printed" in outcome.err
    assert "written" in outcome.err


def test_options_of_other_tools_are_answered_with_ours(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = {field.name.replace("_", "-") for field in msgspec.structs.fields(RunSpec)}
    assert {*ELSEWHERE.values()} - ours == {"attach", "doctor", "plain"}
    assert not {*ELSEWHERE} & ours
    for typed in (["--learning-rate", "3"], ["--learning_rate=3"]):
        monkeypatch.setattr(sys, "argv", ["probe-tui", "checkpoint", *typed])
        with pytest.raises(SystemExit) as end:
            main()
        assert end.value.code == 2
        assert "no such option: --learning-rate\n  remedy: here it is --lr" in capsys.readouterr().err


def test_a_plan_is_the_forecast_alone(command: Callable[..., Outcome]) -> None:
    text = command(CHECKPOINT, "--plan")
    assert text.code == 0
    assert text.out.decode().startswith("forecast, from the measurement to the verdict")
    assert "→ fused" in text.out.decode()
    planned = command(CHECKPOINT, "--plan", "--json").report
    assert planned["forecast"]["method"] == "fused"
    assert planned["forecast"]["measured"]["seconds"] is None
    assert planned["units"] == []
    assert planned["verdict"] is None


def test_a_plan_is_not_the_doctor_s(command: Callable[..., Outcome]) -> None:
    assert command(CHECKPOINT, "--plan", "--doctor").code == 2
