"""Options: precedence, origins, and errors that name option and source."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from probe_engine.errors import UsageError
from probe_engine.spec import LISTS, Resolved, RunSpec, resolve


def test_flag_beats_environment_beats_file_beats_default(tmp_path: Path) -> None:
    (tmp_path / "probe.toml").write_text('seed = 1\nmicro-batch = 2\nsplit = 0.25\nbase = "x"\n')
    environ = {"PROBE_SEED": "3", "PROBE_MICRO_BATCH": "4", "PATH": "/bin"}
    resolved = resolve({"seed": "5", "lr": None, "select": ()}, environ, tmp_path)
    config = resolved.config()
    assert {n: (config[n].value, config[n].origin) for n in ("seed", "micro_batch", "split", "lr")} == {
        "seed": (5, "flag"),
        "micro_batch": (4, "environment"),
        "split": (0.25, "file"),
        "lr": (None, "default"),
    }
    assert set(config) == set(RunSpec.__struct_fields__)


def test_pyproject_is_read_where_there_is_no_probe_toml(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("[tool.probe-tui]\nblock-size = 7\n")
    assert resolve({}, {}, tmp_path).spec.block_size == 7
    (tmp_path / "probe.toml").write_text("block-size = 3\n")
    assert resolve({}, {}, tmp_path).spec.block_size == 3


@pytest.mark.parametrize(
    ("flags", "environ", "toml", "expected"),
    [
        ({"split": "2"}, {}, "", r"--split \(from the flag\): Expected `float` < 1.0"),
        ({}, {"PROBE_MICRO_BATCH": "many"}, "", r"--micro-batch \(from the environment\): Expected `int`"),
        ({}, {}, "weighting = 'token'", r"--weighting \(from the file\): Invalid enum value 'token'"),
        ({}, {}, "colour = 1", "unknown option 'colour' from the file"),
        ({}, {}, "seed = ", "not valid TOML"),
        ({"memory_budget": "lots"}, {}, "", "--memory-budget: expected a size such as 4GiB"),
        (
            {"steps": ("adamw", "sgd")},
            {},
            "",
            r"--steps \(from the flag\): Invalid enum value 'sgd': expected one of preconditioned, adamw",
        ),
        ({}, {}, "steps = []", r"--steps \(from the file\): Expected `array` of length >= 1"),
        ({"prompts": "p.jsonl"}, {}, "", "--prompts and --reward go together"),
        ({"prompts": "p", "reward": "a:b", "rollouts": "r"}, {}, "", "give one of the two"),
    ],
)
def test_what_is_impossible_is_named(
    flags: dict[str, str], environ: dict[str, str], toml: str, expected: str, tmp_path: Path
) -> None:
    (tmp_path / "probe.toml").write_text(toml)
    with pytest.raises(UsageError, match=expected) as raised:
        resolve(flags, environ, tmp_path)
    assert raised.value.exit_code == 2


def test_options_of_several_values_have_commas_between() -> None:
    spec = resolve({}, {"PROBE_STEPS": "adamw,preconditioned", "PROBE_SELECT": "OPT"}).spec
    assert (spec.steps, spec.select) == (("adamw", "preconditioned"), ("OPT",))
    assert {"steps", "select", "ignore"} == LISTS


@pytest.mark.parametrize(
    ("text", "nbytes"), [("4GiB", 4 * 2**30), ("500 MiB", 500 * 2**20), ("1.5GB", 1_500_000_000), ("12", 12)]
)
def test_memory_budget_in_bytes(text: str, nbytes: int) -> None:
    assert resolve({"memory_budget": text}).spec.memory_budget_bytes == nbytes


def test_a_resolved_spec_survives_the_wire() -> None:
    resolved = resolve({"seed": 4, "select": ("GRAD",), "checkpoint": Path("x")}, flag_origin="call")
    assert msgspec.json.decode(msgspec.json.encode(resolved), type=Resolved) == resolved
    assert resolved.origins == {"seed": "call", "select": "call", "checkpoint": "call"}
