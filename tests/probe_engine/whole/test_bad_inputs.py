"""Every bad input gets its code, the facts, a remedy and an exit code; what can be computed is computed."""

from __future__ import annotations

import json
import os
import pickle
import shlex
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import checkpoints
import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import written
from safetensors.torch import load_file, save_file

from probe_engine import probe
from probe_engine.errors import memory_ran_out
from probe_engine.report import Report, encode

PROMPTS, RESPONSES = 8, 3
Options = dict[str, Any] | None


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> dict[checkpoints.Kind, Path]:
    """One healthy run of each kind; tests work on copies."""
    folders = {kind: tmp_path_factory.mktemp(kind) for kind in ("lora", "full")}
    for kind, folder in folders.items():
        checkpoints.run(folder, kind, prompts=PROMPTS, responses=RESPONSES)
    return folders


@pytest.fixture
def copy(good: dict[checkpoints.Kind, Path], tmp_path: Path) -> Callable[[checkpoints.Kind], Path]:
    """Copies a healthy run; returns the copy's checkpoint."""

    def copied(kind: checkpoints.Kind) -> Path:
        shutil.copytree(good[kind], tmp_path / kind)
        return tmp_path / kind / "run" / f"checkpoint-{checkpoints.STEP}"

    return copied


@dataclass(frozen=True)
class Case:
    """A way to damage a run, and what must be said of it."""

    damage: Callable[[Path], Options]
    code: str
    status: str
    exit_code: int
    facts: tuple[str, ...]
    """What the message must name: what was expected, what came, where."""
    units: int = PROMPTS
    """Prompts that are left and measured."""
    kind: checkpoints.Kind = "full"
    beside: frozenset[str] = frozenset()
    """Codes that fail as a consequence."""


def cut(name: str) -> Callable[[Path], None]:
    def damage(checkpoint: Path) -> None:
        data = (checkpoint / name).read_bytes()
        (checkpoint / name).write_bytes(data[: len(data) // 2])

    return damage


def content(name: str, data: bytes) -> Callable[[Path], None]:
    return lambda checkpoint: (checkpoint / name).write_bytes(data) and None


def json_values(name: str, **changes: Any) -> Callable[[Path], None]:
    return lambda checkpoint: checkpoints.edit_json(checkpoint / name, **changes)


def delete(name: str) -> Callable[[Path], None]:
    return lambda checkpoint: (checkpoint / name).unlink()


def pipe(name: str) -> Callable[[Path], None]:
    """A named pipe: reading it would wait for a writer for ever."""

    def damage(checkpoint: Path) -> None:
        (checkpoint / name).unlink(missing_ok=True)
        os.mkfifo(checkpoint / name)

    return damage


def tensor(file: str, name: str, value: float) -> Callable[[Path], None]:
    def damage(checkpoint: Path) -> None:
        state = load_file(checkpoint / file)
        state[name][:] = value
        save_file(state, checkpoint / file)

    return damage


def second_moment(value: float) -> Callable[[Path], None]:
    def spoil(saved: dict[str, Any]) -> None:
        saved["state"][0]["exp_avg_sq"][0, 0] = value

    return lambda checkpoint: written.edit_optimizer(checkpoint, spoil)


def other_shapes(checkpoint: Path) -> None:
    def transpose(saved: dict[str, Any]) -> None:
        for state in saved["state"].values():
            state["exp_avg_sq"] = state["exp_avg_sq"].t().contiguous()

    written.edit_optimizer(checkpoint, transpose)


def rate(value: float) -> Callable[[Path], None]:
    def finish(saved: dict[str, Any]) -> None:
        for group in saved["param_groups"]:
            group["lr"] = value

    return lambda checkpoint: written.edit_optimizer(checkpoint, finish)


def wrong_base(checkpoint: Path) -> Options:
    other = checkpoint.parent / "other"
    written.base_model(other, hidden_size=32)
    return {"base": str(other)}


def no_checkpoint(checkpoint: Path) -> None:
    shutil.rmtree(checkpoint)
    checkpoint.mkdir()
    (checkpoint / "notes.txt").write_text("hello")


def trl_rows(edit: Callable[[list[dict[str, Any]]], list[dict[str, Any]]]) -> Callable[[Path], None]:
    def damage(checkpoint: Path) -> None:
        rows = edit(checkpoints.rows(PROMPTS, RESPONSES))
        pq.write_table(pa.Table.from_pylist(rows), checkpoints.completions(checkpoint))

    return damage


def each(**changes: Any) -> Callable[[Path], None]:
    return trl_rows(lambda rows: [row | changes for row in rows])


def native(edit: Callable[[list[bytes]], list[bytes]]) -> Callable[[Path], Options]:
    """Native rollouts, some of their lines edited."""

    def damage(checkpoint: Path) -> Options:
        path = checkpoint.parent / "rollouts.jsonl"
        checkpoints.native(path, checkpoints.rows(PROMPTS, RESPONSES))
        path.write_bytes(b"\n".join(edit(path.read_bytes().splitlines())))
        return {"rollouts": str(path)}

    return damage


def first_line(line: bytes) -> Callable[[Path], Options]:
    return native(lambda lines: [line, *lines[1:]])


def with_ids(token: int) -> Callable[[Path], Options]:
    """The first prompt's responses as token ids, one of which the model does not know."""

    def edit(lines: list[bytes]) -> list[bytes]:
        rows = [json.loads(line) for line in lines]
        for row in rows[:RESPONSES]:
            row["response_tokens"] = [5, token]
        return [json.dumps(row).encode() for row in rows]

    return native(edit)


CASES = {
    # weights
    "missing weights": Case(
        delete("model.safetensors"), "CKPT002", "fail", 3, ("model.safetensors", "tokenizer.json"), 0
    ),
    "truncated weights": Case(cut("model.safetensors"), "CKPT002", "fail", 3, ("bytes", "truncated"), 0),
    "empty weights": Case(content("model.safetensors", b""), "CKPT002", "fail", 3, ("0 bytes",), 0),
    "truncated adapter": Case(
        cut("adapter_model.safetensors"), "CKPT002", "fail", 3, ("adapter_model.safetensors",), 0, "lora"
    ),
    "an adapter without its base": Case(
        lambda c: shutil.rmtree(c.parents[1] / "base"),
        "CKPT003",
        "fail",
        3,
        ("'../../base'", "found none"),
        0,
        "lora",
    ),
    "a wrong base": Case(wrong_base, "CKPT004", "fail", 3, ("other", "'../../base'"), 0, "lora"),
    "a rank beyond all memory": Case(
        json_values("adapter_config.json", r=10**9), "CKPT004", "fail", 3, ("rank 1000000000",), 0, "lora"
    ),
    "a vocabulary beyond all memory": Case(
        json_values("config.json", vocab_size=10**9), "CKPT001", "fail", 3, ("16,000,", "the files hold"), 0
    ),
    "NaN in the weights": Case(
        tensor("model.safetensors", "transformer.ln_f.weight", float("nan")),
        "CKPT006",
        "fail",
        1,
        ("transformer.ln_f.weight",),
        0,
        beside=frozenset({"GRAD011"}),
    ),
    "weights that overflow": Case(
        tensor("model.safetensors", "transformer.ln_f.weight", 1e38), "GRAD011", "fail", 1, ("finite S",), 0
    ),
    # configuration, tokenizer, layout
    "a folder that is no checkpoint": Case(
        no_checkpoint, "CKPT001", "fail", 3, ("notes.txt", "config.json"), 0
    ),
    "an empty configuration": Case(content("config.json", b""), "CKPT001", "fail", 3, ("config.json",), 0),
    "a configuration that is not UTF-8": Case(
        content("config.json", b'{"model_type": "\xff"}'), "CKPT001", "fail", 3, ("config.json", "0xff"), 0
    ),
    "a configuration that the forward refuses": Case(
        json_values("config.json", resid_pdrop=float("nan")), "GRAD003", "fail", 1, ("RuntimeError", "nan"), 0
    ),
    "an end of text that is no token": Case(
        json_values("generation_config.json", eos_token_id={}), "CKPT001", "fail", 3, ("eos_token_id",), 0
    ),
    "a tokenizer that refuses text": Case(
        json_values("tokenizer_config.json", model_max_length=[1]),
        "ROLL013",
        "fail",
        3,
        ("the tokenizer",),
        0,
    ),
    "a pipe for weights": Case(pipe("model.safetensors"), "CKPT002", "fail", 3, ("model.safetensors",), 0),
    # optimizer
    "a truncated optimizer": Case(cut("optimizer.pt"), "CKPT002", "fail", 1, ("optimizer.pt", "bytes")),
    "an empty optimizer": Case(
        content("optimizer.pt", b""), "CKPT002", "fail", 1, ("optimizer.pt", "0 bytes")
    ),
    "no optimizer": Case(delete("optimizer.pt"), "OPT001", "warn", 0, ("optimizer.pt", "found none")),
    "a state for other shapes": Case(other_shapes, "OPT003", "fail", 1, ("c_attn", "[48, 16] for [16, 48]")),
    "NaN in exp_avg_sq": Case(second_moment(float("nan")), "OPT005", "fail", 1, ("transformer.wte.weight",)),
    "a negative exp_avg_sq": Case(second_moment(-1e-9), "OPT005", "fail", 1, ("transformer.wte.weight",)),
    "a learning rate of 0": Case(rate(0.0), "OPT007", "warn", 0, ("found 0 in optimizer.pt",)),
    "a learning rate beyond numbers": Case(rate(1e300), "STAT001", "fail", 1, ("ESS",)),
    # rollouts
    "no rollouts": Case(
        lambda c: checkpoints.completions(c).unlink(),
        "ROLL017",
        "fail",
        3,
        ("step 3", "completions_00003.parquet"),
        0,
    ),
    "an empty rollouts file": Case(
        native(lambda _: []), "ROLL013", "fail", 3, ("rollouts.jsonl", "empty"), 0
    ),
    "truncated parquet": Case(
        lambda c: cut(f"../completions/{checkpoints.completions(c).name}")(c),
        "ROLL013",
        "fail",
        3,
        ("expected a parquet file",),
        0,
    ),
    "a pipe for rollouts": Case(
        lambda c: {"rollouts": str(c / "pipe")} if pipe("pipe")(c) is None else None,
        "ROLL013",
        "fail",
        3,
        ("expected a file or a folder", "pipe"),
        0,
    ),
    "one group of one": Case(
        native(lambda lines: lines[RESPONSES - 1 :]),
        "ROLL001",
        "fail",
        1,
        ("1 of 8 prompts", "line 1"),
        PROMPTS - 1,
    ),
    "groups of one": Case(
        trl_rows(lambda rows: rows[::RESPONSES]), "ROLL001", "fail", 3, ("8 of 8 prompts",), 0
    ),
    "equal advantages": Case(
        each(advantage=0.0), "ROLL003", "fail", 1, ("all of 8 prompts",), beside=frozenset({"GRAD005"})
    ),
    "advantages that are not finite": Case(
        each(advantage=float("nan")), "ROLL012", "fail", 3, ("8 of 8 prompts", "advantage nan"), 0
    ),
    "advantages that overflow": Case(
        trl_rows(lambda rows: [row | {"advantage": row["advantage"] * 1e300} for row in rows]),
        "GRAD011",
        "fail",
        1,
        ("finite X, Y, P·Y", "Y: transformer.wte.weight"),
        beside=frozenset({"STAT001"}),
    ),
    "an empty response": Case(
        first_line(b'{"prompt": "abc", "response": "", "reward": 1}'),
        "ROLL013",
        "warn",
        0,
        ("line 1", "empty response"),
    ),
    "an empty list of tokens": Case(
        first_line(b'{"prompt": "abc", "response_tokens": [], "reward": 1}'),
        "ROLL013",
        "warn",
        0,
        ("line 1", "empty response"),
    ),
    "a token outside the vocabulary": Case(
        with_ids(32), "ROLL004", "fail", 1, ("0 to 31", "32 (lines 1, 2, 3)"), PROMPTS - 1
    ),
    "a negative token": Case(with_ids(-1), "ROLL004", "fail", 1, ("0 to 31", "-1"), PROMPTS - 1),
    "a malformed line": Case(
        first_line(b'{"prompt": "abc", '), "ROLL013", "warn", 0, ("line 1", "not valid JSON")
    ),
    "a line that is not UTF-8": Case(
        first_line(b'{"prompt": "\xe9"}'), "ROLL013", "warn", 0, ("line 1", "not UTF-8", "0xe9")
    ),
    "a line that says a thing twice": Case(
        first_line(b'{"prompt": "abc", "prompt": "abd", "response": "a", "reward": 1}'),
        "ROLL013",
        "warn",
        0,
        ("line 1", "'prompt' stands there 2 times"),
    ),
    "a line nested without end": Case(
        first_line(b'{"prompt": ' + b"[" * 100_000), "ROLL013", "warn", 0, ("line 1", "nested too deeply")
    ),
    "more tokens than positions": Case(
        native(lambda lines: [lines[0].replace(b'"response": "', b'"response": "' + b"a" * 64), *lines[1:]]),
        "ROLL013",
        "warn",
        0,
        ("line 1", "the model has 64 positions"),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_bad_input_is_named_and_the_rest_is_computed(
    name: str, copy: Callable[[checkpoints.Kind], Path]
) -> None:
    case = CASES[name]
    checkpoint = copy(case.kind)
    options = case.damage(checkpoint) or {}
    report = probe(checkpoint, device="cpu", **options)

    assert [f.code for f in report.findings if f.status == "crash" or f.code == "RUN001"] == []
    found = [f for f in report.findings if (f.code, f.status) == (case.code, case.status)]
    assert found, [(f.code, f.status, f.message) for f in report.findings if f.status != "ok"]
    for fact in case.facts:
        assert fact in found[0].message
    assert found[0].remedy.text
    assert report.run.exit_code == case.exit_code

    failed = {f.code for f in report.findings if f.status == "fail"}
    assert failed == case.beside | ({case.code} if case.status == "fail" else set())
    assert len(report.units) == case.units
    assert (report.run.status == "complete") == (case.units > 0)
    assert (report.verdict is not None) == (case.units > 0)
    assert (report.estimates.u_statistic is not None) == (case.units > 0)
    assert msgspec.json.decode(encode(report), type=Report).run == report.run


def test_the_healthy_runs_are_healthy(good: dict[checkpoints.Kind, Path]) -> None:
    for folder in good.values():
        report = probe(folder / "run" / f"checkpoint-{checkpoints.STEP}", device="cpu")
        assert report.run.exit_code == 0
        assert report.verdict is not None
        assert report.worst(("fail", "crash")) == []


def test_without_a_step_every_change_is_0_and_the_geometry_is_still_known(
    copy: Callable[[checkpoints.Kind], Path],
) -> None:
    checkpoint = copy("full")
    rate(0.0)(checkpoint)
    report = probe(checkpoint, device="cpu")
    estimate = report.estimates.u_statistic
    assert estimate is not None
    assert estimate.delta_h1 == 0
    assert estimate.u_cross != 0
    assert {row.delta_h for row in report.realized if row.estimator == "matched"} == {0.0}
    assert probe(checkpoint, device="cpu", lr=1e-5).estimates.u_statistic.delta_h1 == -1e-5 * estimate.u_cross


def test_parameters_with_impossible_moments_fall_back_and_are_counted(
    copy: Callable[[checkpoints.Kind], Path],
) -> None:
    checkpoint = copy("full")
    second_moment(float("nan"))(checkpoint)
    report = probe(checkpoint, device="cpu")
    assert report.checkpoint is not None
    assert report.gradient_flow is not None
    assert report.checkpoint.optimizer.fallbacks == report.gradient_flow.fallbacks == 1


def test_an_empty_completion_of_trl_is_an_end_of_text_alone(copy: Callable[[checkpoints.Kind], Path]) -> None:
    """Decoding removed the eos that was sampled: the response is not empty."""
    checkpoint = copy("full")
    trl_rows(lambda rows: [rows[0] | {"completion": ""}, *rows[1:]])(checkpoint)
    report = probe(checkpoint, device="cpu")
    assert report.run.exit_code == 0
    assert [report.units[0].responses[0].length, report.units[0].responses[0].terminated] == [1, True]


def test_a_prompt_that_leaves_no_room_for_a_response_is_not_sampled(
    copy: Callable[[checkpoints.Kind], Path], tmp_path: Path
) -> None:
    prompts = tmp_path / "prompts.jsonl"
    texts = [*(f"a{c}" for c in "bcdefgh"), "a" * 60]
    prompts.write_text("".join(json.dumps({"prompt": text}) + "\n" for text in texts))
    report = probe(copy("full"), device="cpu", prompts=str(prompts), reward="checkpoints:lengths")
    assert report.run.status == "complete"
    assert len(report.units) == 7
    left_out = next(f for f in report.findings if f.code == "ROLL013")
    assert left_out.status == "warn"
    assert "line 8" in left_out.message
    assert "the model has 64 positions" in left_out.message


def test_a_file_name_that_is_no_unicode_is_probed_all_the_same(
    copy: Callable[[checkpoints.Kind], Path], tmp_path: Path
) -> None:
    checkpoint = copy("full")
    rollouts = checkpoints.native(tmp_path / os.fsdecode(b"caf\xe9.jsonl"), checkpoints.rows())
    report = probe(checkpoint, device="cpu", rollouts=str(rollouts), out=str(tmp_path / "run"))
    assert report.verdict is not None
    assert (tmp_path / "run" / "report.json").read_bytes() == encode(report)
    assert json.loads(encode(report))["rollouts"]["path"].endswith("caf?.jsonl")


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "name",
    ["trainer_state.json", "optimizer.pt", "training_args.bin", "generation_config.json", "rollouts.jsonl",
     "tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "config.json"],
)  # fmt: skip
def test_a_pipe_in_place_of_a_file_is_not_waited_for(
    name: str, copy: Callable[[checkpoints.Kind], Path]
) -> None:
    checkpoint = copy("full")
    pipe(name)(checkpoint)
    report = probe(checkpoint, device="cpu")
    assert report.run.exit_code in (0, 3)
    assert report.worst(("crash",)) == []


PLANTED = {
    "pytorch_model.bin": ("fail", 3),
    "optimizer.pt": ("fail", 1),
    "training_args.bin": ("info", 0),
    "scheduler.pt": ("ok", 0),
    "rng_state.pth": ("ok", 0),
}


@pytest.mark.parametrize("writer", ["torch.save", "old torch.save", "pickle"])
@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_pickle_leaves_no_trace(
    name: str, writer: str, copy: Callable[[checkpoints.Kind], Path], tmp_path: Path
) -> None:
    status, exit_code = PLANTED[name]
    checkpoint = copy("full")
    trace = tmp_path / "executed"
    if name == "pytorch_model.bin":
        (checkpoint / "model.safetensors").unlink()
    if writer == "pickle":
        (checkpoint / name).write_bytes(pickle.dumps(checkpoints.Planted(trace)))
    else:
        zipped = writer == "torch.save"
        torch.save(
            {"a": checkpoints.Planted(trace)}, checkpoint / name, _use_new_zipfile_serialization=zipped
        )

    report = probe(checkpoint, device="cpu")
    assert not trace.exists()
    assert report.run.exit_code == exit_code
    found = [f for f in report.findings if f.code == "CKPT007"]
    assert status in [f.status for f in found]
    assert report.worst(("crash",)) == []
    if status == "fail":
        refused = next(f for f in found if f.status == "fail")
        assert "mkdir" in refused.message
        assert refused.remedy.commands == [f"probe-tui {shlex.quote(str(checkpoint))} --trust"]
    assert (report.verdict is not None) == (exit_code < 3)


def test_the_three_ways_of_running_out_of_memory_are_known() -> None:
    with pytest.raises(RuntimeError) as refused:
        torch.empty(10**15)
    assert memory_ran_out(refused.value)
    assert memory_ran_out(torch.OutOfMemoryError("CUDA out of memory"))
    assert memory_ran_out(MemoryError())
    assert not memory_ran_out(RuntimeError("index out of range"))


def test_the_planted_pickle_would_leave_a_trace(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(checkpoints.Planted(tmp_path / "executed")))
    assert (tmp_path / "executed").exists()
