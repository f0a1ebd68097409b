"""What reading can find is found before a model is built: no model class is constructed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import checkpoints
import psutil
import pytest
import torch
import written
from transformers import LlamaForCausalLM

from probe_engine.errors import ProbeError
from probe_engine.events import FindingEvent
from probe_engine.report import Finding
from probe_engine.spec import RunSpec
from probe_engine.stages.cached_load import CachedLoad
from probe_engine.stages.load import load


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("good")
    checkpoints.run(folder, "lora", prompts=4, responses=2)
    return folder


@pytest.fixture
def checkpoint(good: Path, tmp_path: Path) -> Path:
    shutil.copytree(good, tmp_path / "copy")
    return tmp_path / "copy" / "run" / f"checkpoint-{checkpoints.STEP}"


class Built(Exception):
    """The model's class was constructed."""


@pytest.fixture
def unbuildable(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise Built

    monkeypatch.setattr(LlamaForCausalLM, "__init__", refuse)


def said(checkpoint: Path, **options: Any) -> tuple[list[Finding], BaseException | None]:
    """The findings of the load stage, and what ended it."""
    findings: list[Finding] = []
    try:
        for event in load(RunSpec(checkpoint=str(checkpoint), device="cpu", **options)):
            if isinstance(event, FindingEvent):
                findings.append(event.finding)
    except ProbeError as error:
        return findings, error
    return findings, None


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def base_of(checkpoint: Path) -> Path:
    return checkpoint.parent.parent / "base"


def missing_shard(checkpoint: Path) -> None:
    index = {"weight_map": {"model.norm.weight": "model-00001-of-00002.safetensors"}}
    (base_of(checkpoint) / "model.safetensors").unlink()
    (base_of(checkpoint) / "model.safetensors.index.json").write_text(json.dumps(index))


STOPPING: dict[str, tuple[Callable[[Path], object], str]] = {
    "a truncated adapter": (lambda c: cut(c / "adapter_model.safetensors"), "CKPT002"),
    "a truncated base": (lambda c: cut(base_of(c) / "model.safetensors"), "CKPT002"),
    "a missing shard": (missing_shard, "CKPT002"),
    "a missing base": (lambda c: shutil.rmtree(base_of(c)), "CKPT003"),
    "a base of no language model": (
        lambda c: checkpoints.edit_json(base_of(c) / "config.json", model_type="clip"),
        "CKPT001",
    ),
    "truncated rollouts": (lambda c: cut(checkpoints.completions(c)), "ROLL013"),
    "no rollouts": (lambda c: checkpoints.completions(c).unlink(), "ROLL017"),
    "text without a tokenizer": (
        lambda c: [p.unlink() for f in (c, base_of(c)) for p in f.glob("tokenizer*")],
        "CKPT008",
    ),
}


@pytest.mark.usefixtures("unbuildable")
@pytest.mark.parametrize("name", STOPPING)
def test_what_stops_the_run_stops_it_before(name: str, checkpoint: Path) -> None:
    damage, code = STOPPING[name]
    damage(checkpoint)
    findings, error = said(checkpoint)
    assert isinstance(error, ProbeError)
    assert error.code == code
    assert [f.code for f in findings][:2] == ["ENV001", "ENV002"]


@pytest.mark.usefixtures("unbuildable")
def test_an_optimizer_that_is_not_adam_s_is_named_before(checkpoint: Path) -> None:
    def other(saved: dict[str, Any]) -> None:
        for state in saved["state"].values():
            state["momentum_buffer"] = state.pop("exp_avg_sq")

    written.edit_optimizer(checkpoint, other)
    findings, error = said(checkpoint)
    assert [f.code for f in findings if f.status == "fail"] == ["OPT002"]
    assert error is not None  # only then the model is built


def test_what_was_said_before_is_not_said_again(checkpoint: Path) -> None:
    (checkpoint / "optimizer.pt").unlink()
    findings, error = said(checkpoint)
    assert error is None
    assert [f.status for f in findings if f.code == "OPT001"] == ["warn"]


@pytest.mark.usefixtures("unbuildable")
def test_weights_larger_than_free_memory_are_not_loaded(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = type("Free", (), {"available": 1000})
    monkeypatch.setattr(psutil, "virtual_memory", free)
    _, error = said(checkpoint)
    assert isinstance(error, ProbeError)
    assert error.code == "ENV004"


def test_the_forecast_counts_what_the_files_hold(checkpoint: Path) -> None:
    findings, _ = said(checkpoint)
    (room,) = (f for f in findings if f.code == "ENV004")
    loaded = written.loaded(checkpoint).policy
    numbers = sum(p.numel() for p in loaded.model.parameters())
    assert room.evidence["weights"] == 4 * numbers
    assert room.evidence["optimizer"] == (checkpoint / "optimizer.pt").stat().st_size
    assert room.evidence["gradients"] % (4 * loaded.registry.numel) == 0
    assert [f.code for f in findings][:2] == ["ENV001", "ENV002"]


def test_a_rerun_with_the_model_it_holds_forecasts_its_own_need(checkpoint: Path) -> None:
    held = CachedLoad()

    def room(**options: Any) -> Finding:
        spec = RunSpec(checkpoint=str(checkpoint), device="cpu", **options)
        _, events = written.drained(held(spec))
        (found,) = (e.finding for e in events if isinstance(e, FindingEvent) and e.finding.code == "ENV004")
        return found

    first, again, smaller = room(micro_batch=4), room(micro_batch=4), room(micro_batch=2)
    assert first.evidence["weights"] > 0
    assert again.evidence["weights"] == 0
    assert (
        again.evidence["micro-batch"] == first.evidence["micro-batch"] == 2 * smaller.evidence["micro-batch"]
    )


def test_a_dtype_is_tried_on_the_device_before_anything_is_read(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("probe_engine.checks.environment.trial", lambda device, dtype: f"no {dtype}")
    findings, error = said(checkpoint, dtype="bfloat16")
    assert isinstance(error, ProbeError)
    assert (error.code, error.exit_code) == ("ENV002", 1)
    assert str(torch.bfloat16) in error.message
    assert [f.code for f in findings] == ["ENV001"]
