"""The demo checkpoint: a real one, made once, whole, and with a story to tell."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import safetensors.torch
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from probe_engine import probe
from probe_engine.demo import ensure_demo
from probe_engine.demo.recipe import Recipe
from probe_engine.errors import ProbeError

TINY = Recipe(
    hidden_size=16,
    layers=1,
    heads=2,
    pretrain_steps=20,
    pretrain_batch=8,
    grpo_steps=2,
    prompts=4,
    num_generations=4,
)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo as users get it."""
    return ensure_demo(tmp_path_factory.mktemp("cache"), lambda _: None)


@pytest.fixture(scope="module")
def rows(checkpoint: Path) -> list[dict[str, Any]]:
    table = pq.read_table(checkpoint.parent / "completions" / "completions_00031.parquet")
    assert table.column_names == ["step", "prompt", "completion", "correct", "advantage"]
    return list(table.to_pylist())


def load(checkpoint: Path) -> tuple[Any, Any]:
    """Tokenizer and policy, the base found by the adapter's own words."""
    config = json.loads((checkpoint / "adapter_config.json").read_text())
    base = AutoModelForCausalLM.from_pretrained(checkpoint / config["base_model_name_or_path"])
    model = PeftModel.from_pretrained(base, str(checkpoint), is_trainable=True)
    return AutoTokenizer.from_pretrained(checkpoint), model.eval()


def weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    """Adapter and base, read into memory: a mapped file would change with what a test does to it."""
    return {
        f"{path.parent.name}/{name}": tensor
        for path in checkpoint.parent.glob("*/*.safetensors")
        for name, tensor in safetensors.torch.load(path.read_bytes()).items()
    }


def make(cache: Path, recipe: Recipe = TINY) -> tuple[Path, list[str]]:
    """The checkpoint and what was narrated: nothing, where nothing was made."""
    told: list[str] = []
    return ensure_demo(cache, told.append, recipe=recipe), told


def test_layout_is_the_trainers(checkpoint: Path) -> None:
    assert checkpoint.name == "checkpoint-30"
    for name in (
        "adapter_config.json",
        "adapter_model.safetensors",
        "optimizer.pt",
        "scheduler.pt",
        "tokenizer.json",
        "tokenizer_config.json",
        "trainer_state.json",
        "training_args.bin",
        "../base/config.json",
        "../base/model.safetensors",
        "../base/tokenizer.json",
    ):
        assert (checkpoint / name).stat().st_size > 0, name
    state = json.loads((checkpoint / "trainer_state.json").read_text())
    assert state["global_step"] == 30
    assert [row["step"] for row in state["log_history"]] == list(range(1, 31))
    rewards = [row["reward"] for row in state["log_history"]]
    assert sum(rewards[-5:]) > sum(rewards[:5]), "GRPO taught nothing"


def test_adam_state_fits_the_adapter(checkpoint: Path) -> None:
    _, model = load(checkpoint)
    shapes = [p.shape for p in model.parameters() if p.requires_grad]
    saved = torch.load(checkpoint / "optimizer.pt", weights_only=True)
    assert [len(group["params"]) for group in saved["param_groups"]] == [len(shapes), 0]
    assert all(group["lr"] == 1e-4 for group in saved["param_groups"])
    assert [saved["state"][i]["exp_avg_sq"].shape for i in range(len(shapes))] == shapes
    for entry in saved["state"].values():
        assert entry["step"] == 30
        assert (entry["exp_avg_sq"] > 0).all()


def test_rewards_and_advantages_are_those_of_the_task(rows: list[dict[str, Any]]) -> None:
    groups = [list(group) for _, group in groupby(rows, key=lambda row: row["prompt"])]
    assert [len(group) for group in groups] == [8] * 64
    assert len({group[0]["prompt"] for group in groups}) == 64
    for group in groups:
        answer = "".join(sorted(group[0]["prompt"].removesuffix("=")))
        rewards = [float(row["completion"] == answer) for row in group]
        assert [row["correct"] for row in group] == rewards
        mean = sum(rewards) / len(rewards)
        assert [row["advantage"] for row in group] == pytest.approx([r - mean for r in rewards])
        assert {row["step"] for row in group} == {31}


def on_policy_z(tokenizer: Any, model: Any, rows: list[dict[str, Any]], temperature: float = 1.0) -> float:
    """method.md (20), one unpadded sequence at a time."""
    surprise, variance = 0.0, 0.0
    for row in rows:
        prompt = tokenizer(row["prompt"])["input_ids"]
        response = tokenizer(row["completion"], add_special_tokens=False)["input_ids"]
        if len(response) < 12:
            response.append(tokenizer.eos_token_id)
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([prompt + response])).logits[0, len(prompt) - 1 : -1]
        log_p = (logits.double() / temperature).log_softmax(-1)
        entropy = -(log_p.exp() * log_p).sum(-1)
        taken = log_p.gather(1, torch.tensor(response)[:, None]).squeeze(1)
        surprise += float((-taken - entropy).sum())
        variance += float((log_p.exp() * (log_p + entropy[:, None]) ** 2).sum())
    return surprise / variance**0.5


def test_rollouts_are_the_loaded_policys(checkpoint: Path, rows: list[dict[str, Any]]) -> None:
    tokenizer, model = load(checkpoint)
    assert tokenizer("42=")["input_ids"][0] == tokenizer.bos_token_id
    assert len({tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id}) == 3
    assert abs(on_policy_z(tokenizer, model, rows)) < 4
    assert abs(on_policy_z(tokenizer, model, rows, temperature=1.3)) > 4, "the test tells no policies apart"


def test_numbers_tell_a_story(checkpoint: Path) -> None:
    report = probe(str(checkpoint))
    assert {f.code for f in report.findings if f.status not in ("ok", "skip", "info")} == set()
    assert report.estimates is not None
    assert report.gradient_flow is not None
    assert report.verdict is not None
    u, split = report.estimates.u_statistic, report.estimates.split
    assert u is not None
    assert split is not None
    assert u.ci95 is not None
    assert split.ci95 is not None
    assert u.ci95[1] < 0, "entropy falls, whatever the noise"
    assert split.ci95[1] < 0
    assert report.gradient_flow.stale_ratio is not None
    assert report.gradient_flow.stale_ratio < 2
    assert all(row.ess_fraction is not None and row.ess_fraction > 0.9 for row in report.realized)
    assert report.verdict.status == "agree"
    entropies = sorted(-sum(unit.S) / unit.G for unit in report.units)
    assert entropies[-8] > 2 * entropies[8], "easy prompts and hard ones"


def test_a_whole_demo_is_reused(tmp_path: Path) -> None:
    first, told = make(tmp_path)
    assert told
    before = {path: path.stat().st_mtime_ns for path in first.parent.rglob("*")}
    again, told = make(tmp_path)
    assert again == first
    assert not told
    assert {path: path.stat().st_mtime_ns for path in first.parent.rglob("*")} == before


@pytest.mark.parametrize("damage", ["missing", "cut", "flipped", "no manifest", "bad manifest"])
def test_a_damaged_demo_is_made_anew(tmp_path: Path, damage: str) -> None:
    checkpoint, _ = make(tmp_path)
    good = weights(checkpoint)
    adapter, manifest = checkpoint / "adapter_model.safetensors", checkpoint.parent / "manifest.json"
    data = adapter.read_bytes()
    match damage:
        case "missing":
            shutil.rmtree(checkpoint.parent / "completions")
        case "cut":
            adapter.write_bytes(data[:-1])
        case "flipped":
            adapter.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        case "no manifest":
            manifest.unlink()
        case "bad manifest":
            manifest.write_bytes(b"\xff{")
    again, told = make(tmp_path)
    assert told
    assert all(torch.equal(t, good[name]) for name, t in weights(again).items())
    assert make(tmp_path)[1] == []


@pytest.mark.parametrize("at", [0, 1, 2])
def test_an_interrupted_build_is_never_taken_for_finished(tmp_path: Path, at: int) -> None:
    told: list[str] = []

    def interrupt(line: str) -> None:
        told.append(line)
        if len(told) > at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ensure_demo(tmp_path, interrupt, recipe=TINY)
    checkpoint, told = make(tmp_path)
    assert told
    assert weights(checkpoint)
    assert {path.name for path in tmp_path.iterdir()} <= {"demo-v1", "demo-v1.lock"}


def test_two_at_once_make_one(tmp_path: Path) -> None:
    with ThreadPoolExecutor(2) as pool:
        (a, told_a), (b, told_b) = pool.map(make, [tmp_path, tmp_path])
    assert a == b
    assert bool(told_a) != bool(told_b)
    assert make(tmp_path)[1] == []


def test_a_seed_fixes_the_weights(tmp_path: Path) -> None:
    torch.manual_seed(1)
    first = weights(make(tmp_path / "a")[0])
    torch.manual_seed(2)
    second = weights(make(tmp_path / "b")[0])
    other = weights(make(tmp_path / "b", dataclasses.replace(TINY, seed=1))[0])
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not any(torch.equal(first[name], other[name]) for name in first if "lora_A" in name)


def test_another_processor_makes_the_same_run(tmp_path: Path) -> None:
    """The libraries without their vector instructions stand for it; where they have none, it is this one."""
    here, _ = make(tmp_path / "here")
    code = f"from test_demo import make; from pathlib import Path; make(Path({str(tmp_path / 'there')!r}))"
    plain = {
        "ATEN_CPU_CAPABILITY": "default",
        "MKL_CBWR": "COMPATIBLE",
        "PYTHONPATH": str(Path(__file__).parent),
    }
    subprocess.run([sys.executable, "-c", code], env={**os.environ, **plain}, check=True)
    there = tmp_path / "there" / here.parent.name / here.name
    sampled, again = (pq.read_table(next((at.parent / "completions").iterdir())) for at in (here, there))
    assert sampled.equals(again)
    first, second = weights(here), weights(there)
    assert all(torch.allclose(first[name], second[name], rtol=1e-6, atol=1e-7) for name in first)


def test_the_callers_process_is_left_as_it_was(tmp_path: Path) -> None:
    random_state, threads = torch.get_rng_state(), torch.get_num_threads()
    make(tmp_path)
    assert torch.equal(torch.get_rng_state(), random_state)
    assert torch.get_num_threads() == threads


def test_a_cache_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ProbeError, match="demo checkpoint") as raised:
        make(tmp_path / "file")
    assert raised.value.code == "RUN003"
    assert raised.value.remedy


def test_importing_loads_no_torch() -> None:
    code = "import sys, probe_engine.demo; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
