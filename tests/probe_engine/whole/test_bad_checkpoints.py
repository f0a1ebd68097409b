"""Bad checkpoints get their code, the facts, a remedy and an exit code; what can be computed is computed."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import checkpoints
import pytest
import written
from bad_inputs import Case, Copy, Options, cut, pipe
from safetensors.torch import load_file, save_file

from probe_engine import probe


def content(name: str, data: bytes) -> Callable[[Path], None]:
    return lambda checkpoint: (checkpoint / name).write_bytes(data) and None


def json_values(name: str, **changes: Any) -> Callable[[Path], None]:
    return lambda checkpoint: checkpoints.edit_json(checkpoint / name, **changes)


def delete(name: str) -> Callable[[Path], None]:
    return lambda checkpoint: (checkpoint / name).unlink()


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
}


@pytest.mark.parametrize("name", CASES)
def test_it_is_named_and_the_rest_is_computed(name: str, copy: Copy) -> None:
    CASES[name].holds(copy)


def test_the_healthy_runs_are_healthy(good: dict[checkpoints.Kind, Path]) -> None:
    for folder in good.values():
        report = probe(folder / "run" / f"checkpoint-{checkpoints.STEP}", device="cpu")
        assert report.run.exit_code == 0
        assert report.verdict is not None
        assert report.worst(("fail", "crash")) == []


def test_without_a_step_every_change_is_0_and_the_geometry_is_still_known(
    copy: Copy,
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
    copy: Copy,
) -> None:
    checkpoint = copy("full")
    second_moment(float("nan"))(checkpoint)
    report = probe(checkpoint, device="cpu")
    assert report.checkpoint is not None
    assert report.gradient_flow is not None
    assert report.checkpoint.optimizer.fallbacks == report.gradient_flow.fallbacks == 1


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "name",
    ["trainer_state.json", "optimizer.pt", "training_args.bin", "generation_config.json", "rollouts.jsonl",
     "tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "config.json"],
)  # fmt: skip
def test_a_pipe_in_place_of_a_file_is_not_waited_for(name: str, copy: Copy) -> None:
    checkpoint = copy("full")
    pipe(name)(checkpoint)
    report = probe(checkpoint, device="cpu")
    assert report.run.exit_code in (0, 3)
    assert report.worst(("crash",)) == []
