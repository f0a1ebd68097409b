"""Checkpoints written by transformers, peft and torch themselves, for tests that read them."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Generator
from pathlib import Path
from typing import Any, TypeVar

import tiny
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast, Trainer
from trl import GRPOConfig

from probe_engine.events import AnyEvent, FindingEvent, Part
from probe_engine.report import CheckpointInfo, Finding
from probe_engine.spec import RunSpec
from probe_engine.stages.load import load
from probe_engine.types import Policy

T = TypeVar("T")


class Loaded:
    """What the load stage returned and said."""

    def __init__(self, policy: Policy, events: list[AnyEvent]) -> None:
        self.policy = policy
        self.events = events
        self.findings: list[Finding] = [e.finding for e in events if isinstance(e, FindingEvent)]
        parts = [e.checkpoint for e in events if isinstance(e, Part) and e.checkpoint is not None]
        self.info: CheckpointInfo = parts[0]

    def statuses(self, code: str) -> list[str]:
        return [found.status for found in self.findings if found.code == code]

    def above_info(self) -> list[tuple[str, str]]:
        return [(f.code, f.status) for f in self.findings if f.status in ("warn", "fail", "crash")]


def drained(stage: Generator[AnyEvent, None, T]) -> tuple[T, list[AnyEvent]]:
    events = []
    while True:
        try:
            events.append(next(stage))
        except StopIteration as stop:
            return stop.value, events


def loaded(path: Path, **options: Any) -> Loaded:
    """The load stage's work on a checkpoint, with rollouts of token ids somewhere else."""
    row = {"prompt_tokens": [2, 3], "response_tokens": [4, 1], "reward": 1.0}
    with tempfile.TemporaryDirectory() as elsewhere:
        rollouts = Path(elsewhere, "rollouts.jsonl")
        rollouts.write_text(2 * f"{json.dumps(row)}\n")
        spec = RunSpec(**({"checkpoint": str(path), "rollouts": str(rollouts), "device": "cpu"} | options))
        return Loaded(*drained(load(spec)))


def base_model(folder: Path, kind: str = "llama", **changes: Any) -> nn.Module:
    """A random model that knows the folder it was saved in, as an adapter's base does."""
    no_dropout = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0} if kind == "gpt2" else {}
    tiny.model(kind, **no_dropout, **changes).save_pretrained(folder)  # type: ignore[operator]
    tokenizer().save_pretrained(folder)
    model: nn.Module = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return model


def tokenizer(size: int = tiny.VOCABULARY) -> PreTrainedTokenizerFast:
    vocabulary = {"<pad>": 0, "<eos>": 1} | {chr(ord("a") + i - 2): i for i in range(2, size)}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="<pad>"))
    words.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="<eos>")


def checkpoint(model: nn.Module, folder: Path, *, steps: int = 2, **arguments: Any) -> dict[str, Tensor]:
    """Trains some steps on random gradients and saves what the Hugging Face Trainer saves.

    Returns:
        exp_avg_sq by name, read from the live optimizer: the truth of index → name.
    """
    settings = {"learning_rate": 1e-3, "weight_decay": 0.1, "max_completion_length": 7} | arguments
    args = GRPOConfig(output_dir=str(folder), use_cpu=True, bf16=False, report_to=[], **settings)
    optimizer = Trainer(model=model, args=args).create_optimizer()
    generator = torch.Generator().manual_seed(5)
    trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
    for _ in range(steps):
        for parameter in trainable.values():
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        optimizer.step()
    model.zero_grad()
    model.save_pretrained(folder)  # type: ignore[operator]
    tokenizer().save_pretrained(folder)
    torch.save(optimizer.state_dict(), folder / "optimizer.pt")
    torch.save(args, folder / "training_args.bin")
    (folder / "trainer_state.json").write_text(json.dumps({"global_step": steps}))
    return {name: optimizer.state[p]["exp_avg_sq"].clone() for name, p in trainable.items()}


def edit_optimizer(folder: Path, edit: Any) -> None:
    """Rewrites optimizer.pt after `edit(state_dict)`."""
    saved = torch.load(folder / "optimizer.pt", weights_only=True)
    edit(saved)
    torch.save(saved, folder / "optimizer.pt")


def logits(model: nn.Module) -> Tensor:
    model.eval()
    with torch.no_grad():
        result: Tensor = model(input_ids=torch.arange(2, 12)[None]).logits
    return result
