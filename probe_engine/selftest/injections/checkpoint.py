"""CKPT, injected."""

from __future__ import annotations

import fractions
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoTokenizer

from probe_engine.api import doctor
from probe_engine.report import Report
from probe_engine.selftest.injection import Injection
from probe_engine.selftest.lab import Lab

WEIGHTS = "model.safetensors"
ADAPTER = "adapter_model.safetensors"


def _examined(spoil: Callable[[Path], object]) -> Callable[[Lab], Report]:
    """Spoils the checkpoint folder, which has `../base` beside it, and examines it."""

    def inject(lab: Lab) -> Report:
        checkpoint = lab.checkpoint()
        spoil(checkpoint)
        return doctor(checkpoint, device="cpu")

    return inject


def _base(checkpoint: Path) -> Path:
    return checkpoint.parent / "base"


def _no_configuration(checkpoint: Path) -> None:
    (checkpoint / "adapter_config.json").unlink()


def _cut(checkpoint: Path) -> None:
    weights = _base(checkpoint) / WEIGHTS
    weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])


def _no_base(checkpoint: Path) -> None:
    shutil.rmtree(_base(checkpoint))


def _rewritten(file: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    state = load_file(file)
    change(state)
    save_file(state, file, {"format": "pt"})


def _adapter_of_another_width(checkpoint: Path) -> None:
    def widen(state: dict[str, Tensor]) -> None:
        name = next(name for name in state if "lora_A" in name)
        state[name] = state[name].repeat(1, 2)

    _rewritten(checkpoint / ADAPTER, widen)


def _no_final_norm(checkpoint: Path) -> None:
    _rewritten(_base(checkpoint) / WEIGHTS, lambda state: state.pop("model.norm.weight"))


def _not_a_number(checkpoint: Path) -> None:
    def diverge(state: dict[str, Tensor]) -> None:
        state["lm_head.weight"][3] = float("nan")

    _rewritten(_base(checkpoint) / WEIGHTS, diverge)


def _pickled_object(checkpoint: Path) -> None:
    torch.save(
        {"state": {}, "param_groups": [], "note": fractions.Fraction(1, 3)}, checkpoint / "optimizer.pt"
    )


def _larger_tokenizer(checkpoint: Path) -> None:
    tokenizer: Any = AutoTokenizer.from_pretrained(checkpoint, local_files_only=True)
    tokenizer.add_tokens(["<one>", "<more>"])
    tokenizer.save_pretrained(checkpoint)


class _Int8Linear(nn.Module):
    """A linear layer as weight-only quantisation leaves it: whole numbers, and a scale for each row."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        weight = linear.weight.detach()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.scale = nn.Buffer(weight.abs().amax(1, keepdim=True) / 127)
        self.weight = nn.Parameter((weight / self.scale).round().to(torch.int8), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, self.weight.to(x.dtype) * self.scale)


def _quantised(lab: Lab) -> Report:
    healthy = lab.objects()
    layer: Any = healthy.model.get_base_model().model.layers[0].mlp.up_proj
    layer.base_layer = _Int8Linear(layer.base_layer)
    return doctor(healthy.model, optimizer=healthy.optimizer, batch=healthy.batch, device="cpu")


INJECTIONS: tuple[Injection, ...] = (
    Injection("CKPT001", "adapter_config.json is gone", _examined(_no_configuration)),
    Injection("CKPT002", "the base's weights are cut in half", _examined(_cut)),
    Injection("CKPT003", "the base's folder is gone", _examined(_no_base)),
    Injection("CKPT004", "a lora_A is twice as wide", _examined(_adapter_of_another_width)),
    Injection("CKPT005", "the final norm's weight is missing", _examined(_no_final_norm)),
    Injection("CKPT006", "a row of the head is NaN", _examined(_not_a_number)),
    Injection("CKPT007", "optimizer.pt holds an object of another module", _examined(_pickled_object)),
    Injection("CKPT008", "the tokenizer has tokens beyond the embedding", _examined(_larger_tokenizer)),
    Injection("CKPT009", "a layer of the base is quantised to int8", _quantised),
)
