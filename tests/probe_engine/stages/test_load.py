"""Checkpoints written by the real libraries are read back whole; bad ones are refused with their code."""

from __future__ import annotations

import json
import os
import pickle
import random
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
import written
from safetensors.torch import load_file, save_file
from torch import nn

from probe_engine.environment.device import existing_device
from probe_engine.errors import ProbeError
from probe_engine.events import encode


def full(kind: str, **changes: Any) -> Callable[[Path], nn.Module]:
    return lambda folder: written.base_model(folder / "base", kind, **changes)


def adapter(kind: str, base: dict[str, Any] | None = None, **lora: Any) -> Callable[[Path], nn.Module]:
    return lambda folder: tiny.with_lora(written.base_model(folder / "base", kind, **(base or {})), **lora)


MODELS = {
    "llama": full("llama"),
    "gpt2 with a tied head": full("gpt2"),
    "qwen2": full("qwen2"),
    "llama with a tied head": full("llama", tie_word_embeddings=True),
    "LoRA": adapter("llama"),
    "LoRA on Conv1D": adapter("gpt2", fan_in_fan_out=True),
    "LoRA on all linear layers": adapter("llama", target_modules="all-linear"),
    "LoRA on the embedding": adapter("llama", target_modules=["embed_tokens", "o_proj"]),
    "LoRA with biases": adapter("qwen2", target_modules=["q_proj"], bias="lora_only"),
    "DoRA": adapter("qwen2", use_dora=True),
    "modules_to_save": adapter("llama", modules_to_save=["lm_head", "embed_tokens"]),
    "modules_to_save, tied": adapter("gpt2", fan_in_fan_out=True, modules_to_save=["lm_head"]),
}


@pytest.mark.parametrize("name", MODELS)
def test_everything_is_read_back(name: str, tmp_path: Path) -> None:
    original = MODELS[name](tmp_path)
    folder = tmp_path / "run" / "checkpoint-2"
    truth = written.checkpoint(original, folder)
    read = written.loaded(folder)
    model = read.policy.model

    assert read.above_info() == []
    there = dict(original.named_parameters())
    here = dict(model.named_parameters())
    assert here.keys() == there.keys()
    assert all(torch.equal(here[n], there[n]) for n in there)
    assert [n for n, p in here.items() if p.requires_grad] == [n for n, p in there.items() if p.requires_grad]
    assert torch.equal(written.logits(model), written.logits(original))
    assert not model.training

    assert read.policy.registry.names == tuple(truth)
    moments = read.policy.optimizer.moments
    assert all(torch.equal(moments[n].exp_avg_sq, v) for n, v in truth.items())
    assert read.policy.optimizer.mapped_by == "position"
    assert read.info.optimizer.fallbacks == 0
    assert (read.info.step, read.info.kind) == (2, "peft" if hasattr(model, "peft_config") else "full")
    assert read.policy.trainer["max_completion_length"] == 7
    assert len(read.policy.tokenizer) == tiny.VOCABULARY


@pytest.fixture
def lora(tmp_path: Path) -> Path:
    """A LoRA checkpoint, its base beside it in `base/`."""
    folder = tmp_path / "lora" / "checkpoint-2"
    written.checkpoint(MODELS["LoRA"](folder.parent), folder)
    return folder


@pytest.fixture
def gpt2(tmp_path: Path) -> Path:
    """A full GPT-2 checkpoint with a tied head."""
    folder = tmp_path / "gpt2" / "checkpoint-2"
    written.checkpoint(MODELS["gpt2 with a tied head"](folder.parent), folder)
    return folder


@pytest.mark.parametrize("dtype", ["bfloat16", "float64"])
def test_the_whole_model_has_the_dtype_asked_for(lora: Path, dtype: str) -> None:
    model = written.loaded(lora, dtype=dtype).policy.model
    assert {p.dtype for p in model.parameters()} == {getattr(torch, dtype)}


def test_loading_leaves_the_random_state_alone(lora: Path) -> None:
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    written.loaded(lora)
    assert torch.equal(before, torch.random.get_rng_state())


def test_loading_uses_no_network_and_prints_nothing(
    lora: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    written.loaded(lora)
    assert capfd.readouterr() == ("", "")


def test_shards_are_read_and_their_progress_told(tmp_path: Path) -> None:
    original = written.base_model(tmp_path / "base")
    folder = tmp_path / "sharded"
    original.save_pretrained(folder, max_shard_size="4KB")  # type: ignore[operator]
    shards = sorted(folder.glob("*.safetensors"))
    assert len(shards) > 2
    read = written.loaded(folder)
    assert torch.equal(written.logits(read.policy.model), written.logits(original))
    done = [e.done for e in read.events if type(e).__name__ == "Progress"]
    assert done == sorted(done)
    assert done[-1] == sum(shard.stat().st_size for shard in shards)
    shards[1].unlink()
    with pytest.raises(ProbeError, match=shards[1].name) as refused:
        written.loaded(folder)
    assert refused.value.code == "CKPT002"


def test_prefixes_of_wrappers_are_stripped(gpt2: Path) -> None:
    expected = written.logits(written.loaded(gpt2).policy.model)
    state = load_file(gpt2 / "model.safetensors")
    (gpt2 / "model.safetensors").unlink()
    torch.save(
        {f"module._orig_mod.{k.replace('.h.0.', '.h.0._fsdp_wrapped_module.')}": v for k, v in state.items()},
        gpt2 / "pytorch_model.bin",
    )
    assert torch.equal(written.logits(written.loaded(gpt2).policy.model), expected)


def test_an_adapter_in_a_subfolder_is_found_and_the_reference_is_not_taken(tmp_path: Path) -> None:
    base = written.base_model(tmp_path / "base")
    original = tiny.with_lora(base)
    original.add_adapter("ref", original.peft_config["default"])  # type: ignore[operator, union-attr, index]
    written.checkpoint(original, tmp_path / "both")
    original.set_adapter("default")  # type: ignore[operator]
    folder = tmp_path / "checkpoint-2"
    truth = written.checkpoint(original, folder)
    (folder / "policy").mkdir()
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (folder / name).rename(folder / "policy" / name)
    assert (folder / "ref" / "adapter_config.json").is_file()
    read = written.loaded(folder)
    assert read.above_info() == []
    renamed = {name.replace(".default.", ".policy."): v for name, v in truth.items()}
    assert read.policy.registry.names == tuple(renamed)
    assert all(torch.equal(read.policy.optimizer.moments[n].exp_avg_sq, v) for n, v in renamed.items())
    assert torch.equal(written.logits(read.policy.model), written.logits(original))


@pytest.mark.parametrize("relative", ["../base", "base"])
def test_a_relative_base_is_looked_for_from_the_checkpoint_up(lora: Path, relative: str) -> None:
    config = json.loads((lora / "adapter_config.json").read_text())
    (lora / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": relative}))
    assert written.loaded(lora).info.kind == "peft"


class TestTorchSave:
    """One file with model, optimizer and names."""

    @pytest.fixture
    def run(self, tmp_path: Path) -> dict[str, Any]:
        model = written.base_model(tmp_path / "base")
        named = [(name, p) for name, p in reversed(list(model.named_parameters()))]
        optimizer = torch.optim.AdamW([p for _, p in named], lr=1e-4)
        for index, (_, parameter) in enumerate(named):
            parameter.grad = torch.full_like(parameter, 1.0 + index)
        optimizer.step()
        self.squares = {name: optimizer.state[p]["exp_avg_sq"] for name, p in named}
        return {
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "param_names": [name for name, _ in named],
            "config": model.config.to_dict(),  # type: ignore[operator, union-attr]
            "step": 40,
        }

    def test_is_read_with_its_names_list(self, run: dict[str, Any], tmp_path: Path) -> None:
        torch.save(run, tmp_path / "run.pt")
        read = written.loaded(tmp_path / "run.pt")
        assert read.above_info() == []
        assert (read.info.format, read.info.step) == ("torch.save", 40)
        assert read.policy.optimizer.mapped_by == "names_list"
        moments = read.policy.optimizer.moments
        assert all(torch.equal(moments[n].exp_avg_sq, v) for n, v in self.squares.items())
        assert all(torch.equal(p, run["model"][n]) for n, p in read.policy.model.named_parameters())

    def test_takes_its_configuration_from_the_base(self, run: dict[str, Any], tmp_path: Path) -> None:
        del run["config"]
        torch.save(run, tmp_path / "run.pt")
        with pytest.raises(ProbeError, match="config") as refused:
            written.loaded(tmp_path / "run.pt")
        assert refused.value.code == "CKPT001"
        assert refused.value.commands
        assert written.loaded(tmp_path / "run.pt", base=str(tmp_path / "base")).info.step == 40

    def test_without_optimizer_says_so(self, run: dict[str, Any], tmp_path: Path) -> None:
        torch.save(run["model"], tmp_path / "step-7.pt")
        read = written.loaded(tmp_path / "step-7.pt", base=str(tmp_path / "base"))
        assert read.statuses("OPT001") == ["warn"]
        assert read.info.step == 7


def cut(path: Path, share: float = 0.6) -> None:
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])


class TestRefused:
    """What stops the run: a ProbeError with its code and the facts."""

    def refused(self, path: Path, code: str, **options: Any) -> ProbeError:
        with pytest.raises(ProbeError) as error:
            written.loaded(path, **options)
        assert error.value.code == code
        assert error.value.exit_code == 3
        return error.value

    def test_nothing_there(self, tmp_path: Path) -> None:
        self.refused(tmp_path / "absent", "CKPT001")

    def test_a_folder_that_is_no_checkpoint(self, tmp_path: Path) -> None:
        (tmp_path / "notes.txt").write_text("hello")
        assert "notes.txt" in self.refused(tmp_path, "CKPT001").message

    def test_truncated_weights_before_a_model_is_built(
        self, gpt2: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("probe_engine.stages.load.build_causal_lm", pytest.fail)
        size = (gpt2 / "model.safetensors").stat().st_size
        cut(gpt2 / "model.safetensors")
        message = self.refused(gpt2, "CKPT002").message
        assert str(size) in message
        assert str(int(size * 0.6)) in message

    def test_missing_weights(self, gpt2: Path) -> None:
        (gpt2 / "model.safetensors").unlink()
        assert "model.safetensors" in self.refused(gpt2, "CKPT002").message

    def test_truncated_adapter(self, lora: Path) -> None:
        cut(lora / "adapter_model.safetensors")
        self.refused(lora, "CKPT002")

    def test_truncated_torch_weights(self, gpt2: Path) -> None:
        state = load_file(gpt2 / "model.safetensors")
        (gpt2 / "model.safetensors").unlink()
        torch.save(state, gpt2 / "pytorch_model.bin")
        cut(gpt2 / "pytorch_model.bin")
        self.refused(gpt2, "CKPT002")

    def test_an_adapter_without_its_base(self, lora: Path) -> None:
        shutil.rmtree(lora.parent / "base")
        error = self.refused(lora, "CKPT003")
        assert "base" in error.message
        self.refused(lora, "CKPT003", base=str(lora.parent / "elsewhere"))

    @pytest.mark.parametrize("changes", [{"hidden_size": 32}, {"num_hidden_layers": 1}])
    def test_a_wrong_base(self, lora: Path, changes: dict[str, int], tmp_path: Path) -> None:
        written.base_model(tmp_path / "other", **changes)
        assert "other" in self.refused(lora, "CKPT004", base=str(tmp_path / "other")).message

    def test_a_missing_adapter_key(self, lora: Path) -> None:
        state = load_file(lora / "adapter_model.safetensors")
        gone = next(iter(state))
        del state[gone]
        save_file(state, lora / "adapter_model.safetensors")
        self.refused(lora, "CKPT004")

    def test_a_missing_key_and_another_shape(self, gpt2: Path) -> None:
        state = load_file(gpt2 / "model.safetensors")
        del state["transformer.ln_f.weight"]
        state["transformer.wpe.weight"] = torch.zeros(3, 16)
        save_file(state, gpt2 / "model.safetensors")
        message = self.refused(gpt2, "CKPT005").message
        assert "transformer.ln_f.weight" in message
        assert "[3, 16] for [64, 16]" in message

    def test_a_configuration_of_no_language_model(self, gpt2: Path) -> None:
        (gpt2 / "config.json").write_text('{"model_type": "clip"}')
        assert "clip" in self.refused(gpt2, "CKPT001").message

    @pytest.mark.parametrize(
        "content",
        [b"", b"\xff\xfe{}", b"[1]", b"{", b"[" * 100_000, b'{"a": "\\ud800"}'],
        ids=["empty", "not UTF-8", "a list", "cut", "nested", "a surrogate"],
    )
    @pytest.mark.parametrize("name", ["config.json", "adapter_config.json"])
    def test_odd_json(self, gpt2: Path, lora: Path, name: str, content: bytes) -> None:
        folder = lora if name.startswith("adapter") else gpt2
        (folder / name).write_bytes(content)
        assert name in self.refused(folder, "CKPT001").message

    def test_an_absent_device(self) -> None:
        for name in ("cuda:99", "meta", "gibberish", ""):
            with pytest.raises(ProbeError, match="--device") as refused:
                existing_device(name)
            assert (refused.value.code, refused.value.exit_code) == ("ENV002", 2)
        assert existing_device("cpu").type == "cpu"


class TestFindings:
    """What is told while the run goes on."""

    def test_unexpected_keys(self, gpt2: Path) -> None:
        state = load_file(gpt2 / "model.safetensors")
        save_file(state | {"value_head.weight": torch.zeros(2)}, gpt2 / "model.safetensors")
        read = written.loaded(gpt2)
        assert read.above_info() == [("CKPT005", "fail")]
        assert any("value_head.weight" in f.message for f in read.findings)

    def test_non_finite_weights(self, gpt2: Path) -> None:
        state = load_file(gpt2 / "model.safetensors")
        state["transformer.ln_f.bias"][3] = float("nan")
        save_file(state, gpt2 / "model.safetensors")
        read = written.loaded(gpt2)
        assert read.above_info() == [("CKPT006", "fail")]
        assert any("transformer.ln_f.bias" in f.message for f in read.findings if f.code == "CKPT006")

    def test_no_tokenizer(self, gpt2: Path) -> None:
        for path in gpt2.glob("tokenizer*"):
            path.unlink()
        read = written.loaded(gpt2)
        assert read.statuses("CKPT008") == ["info"]
        assert read.policy.tokenizer is None

    def test_a_damaged_tokenizer(self, gpt2: Path) -> None:
        cut(gpt2 / "tokenizer.json")
        assert written.loaded(gpt2).statuses("CKPT008") == ["warn"]

    def test_a_tokenizer_of_another_model(self, gpt2: Path) -> None:
        written.tokenizer(tiny.VOCABULARY + 1).save_pretrained(gpt2)
        assert written.loaded(gpt2).statuses("CKPT008") == ["fail"]

    def test_no_optimizer(self, gpt2: Path) -> None:
        (gpt2 / "optimizer.pt").unlink()
        read = written.loaded(gpt2)
        assert read.above_info() == [("OPT001", "warn")]
        assert read.policy.optimizer.lr_origin == "training_args.bin"
        assert read.info.optimizer.fallbacks == len(read.policy.registry)

    def test_a_truncated_optimizer(self, gpt2: Path) -> None:
        cut(gpt2 / "optimizer.pt")
        read = written.loaded(gpt2)
        assert read.above_info() == [("CKPT002", "fail")]
        assert set(read.statuses("OPT003")) == {"skip"}

    @pytest.mark.parametrize("changes", [{"n_embd": 32}, {"n_layer": 1}])
    def test_a_state_of_another_model(self, gpt2: Path, changes: dict[str, int], tmp_path: Path) -> None:
        written.checkpoint(written.base_model(tmp_path / "base", "gpt2", **changes), tmp_path / "other")
        shutil.copy(tmp_path / "other" / "optimizer.pt", gpt2 / "optimizer.pt")
        read = written.loaded(gpt2)
        assert read.above_info() == [("OPT003", "fail")]
        assert read.policy.optimizer.moments == {}

    @pytest.mark.parametrize("value", [float("nan"), -1e-9, float("inf")])
    def test_an_impossible_second_moment(self, gpt2: Path, value: float) -> None:
        def spoil(saved: dict[str, Any]) -> None:
            saved["state"][0]["exp_avg_sq"][0, 0] = value

        written.edit_optimizer(gpt2, spoil)
        read = written.loaded(gpt2)
        assert read.above_info() == [("OPT005", "fail")]
        assert "transformer.wte.weight" in next(f.message for f in read.findings if f.code == "OPT005")
        assert read.info.optimizer.fallbacks == 1

    def test_a_learning_rate_of_0(self, gpt2: Path) -> None:
        def finish(saved: dict[str, Any]) -> None:
            for group in saved["param_groups"]:
                group["lr"] = 0.0

        written.edit_optimizer(gpt2, finish)
        assert written.loaded(gpt2).above_info() == [("OPT007", "warn")]
        read = written.loaded(gpt2, lr=1e-5)
        assert read.above_info() == []
        assert (read.policy.optimizer.lr, read.policy.optimizer.lr_origin) == (1e-5, "option")


class Planted:
    """Touches a file when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.trace),)


@pytest.mark.parametrize("writer", ["torch.save", "old torch.save", "pickle"])
@pytest.mark.parametrize("name", ["optimizer.pt", "training_args.bin", "pytorch_model.bin"])
def test_a_planted_pickle_never_runs(gpt2: Path, name: str, writer: str) -> None:
    trace = gpt2 / "trace"
    (gpt2 / "model.safetensors").rename(
        gpt2 / ("unused" if name == "pytorch_model.bin" else "model.safetensors")
    )
    path = gpt2 / name
    if writer == "pickle":
        path.write_bytes(pickle.dumps(Planted(trace)))
    else:
        torch.save(Planted(trace), path, _use_new_zipfile_serialization=writer == "torch.save")
    if name == "pytorch_model.bin":
        with pytest.raises(ProbeError) as refused:
            written.loaded(gpt2)
        assert refused.value.code == "CKPT007"
        assert "mkdir" in refused.value.message
    elif name == "optimizer.pt":
        assert written.loaded(gpt2).above_info() == [("CKPT007", "fail")]
    else:
        assert written.loaded(gpt2, trust=True).statuses("CKPT007") == ["info"]
    assert not trace.exists()


def test_trust_lets_torch_unpickle_an_optimizer(gpt2: Path) -> None:
    def carry(saved: dict[str, Any]) -> None:
        saved["extra"] = Planted(gpt2 / "trace")

    written.edit_optimizer(gpt2, carry)
    assert written.loaded(gpt2, trust=True).above_info() == []
    assert (gpt2 / "trace").exists()


def outcome(folder: Path) -> ProbeError | None:
    """Loads it, writes every event, and returns the refusal."""
    try:
        assert all(encode(event) for event in written.loaded(folder).events)
    except ProbeError as error:
        return error
    return None


@pytest.mark.parametrize("name", ["lora", "gpt2"])
def test_mutated_folders_give_findings_or_refusals_only(name: str, request: pytest.FixtureRequest) -> None:
    folder: Path = request.getfixturevalue(name)
    rng = random.Random(0)
    files = sorted(path for path in folder.iterdir() if path.is_file())
    for _ in range(40):
        path = rng.choice(files)
        original = path.read_bytes()
        data = bytearray(original)
        match rng.choice(["flip", "cut", "delete", "swap", "folder"]):
            case "flip":
                for _ in range(rng.choice([1, 20])):
                    data[rng.randrange(len(data))] = rng.randrange(256)
                path.write_bytes(data)
            case "cut":
                path.write_bytes(data[: rng.randrange(len(data))])
            case "swap":
                path.write_bytes(rng.choice(files).read_bytes())
            case "folder":
                path.unlink()
                path.mkdir()
            case _:
                path.unlink()
        refusal = outcome(folder)
        assert refusal is None or (refusal.code.startswith("CKPT") and refusal.message.encode())
        if path.is_dir():
            path.rmdir()
        path.write_bytes(original)
    written.loaded(folder)
