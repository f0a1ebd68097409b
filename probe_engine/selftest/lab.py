"""The lab: one healthy tiny run, made in seconds, of which every injection spoils its own copy."""

from __future__ import annotations

import copy
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from probe_engine.demo.build import build, quiet
from probe_engine.demo.digits import draw
from probe_engine.demo.grpo import Rollouts, sample
from probe_engine.demo.precise import precise
from probe_engine.demo.recipe import Recipe
from probe_engine.demo.trainer_layout import optimizer_groups

RECIPE = Recipe(
    seed=4,
    hidden_size=32,
    pretrain_steps=200,
    pretrain_batch=64,
    pretrain_lr=1e-2,
    grpo_steps=20,
    prompts=24,
)
"""Large enough that no finding above `info` is true of it, small enough to be made while one waits."""


@dataclass(frozen=True)
class Objects:
    """What a training script holds."""

    model: Any
    """A PeftModel with a trained LoRA adapter, in eval mode."""
    optimizer: torch.optim.AdamW
    tokenizer: Any
    batch: dict[str, Tensor]
    """As trl's tensors, sampled from the model: prompt_ids, prompt_mask, completion_ids, …"""


class Lab:
    """Makes the run once; hands out copies.

    Args:
        folder: empty; the run and its copies go below it.
        narrate: gets a line now and then while the run is made.
    """

    def __init__(self, folder: Path, narrate: Callable[[str], None] = lambda _: None) -> None:
        self._folder = folder
        self._copies = 0
        self._healthy = folder / "healthy"
        self._healthy.mkdir(parents=True)
        build(self._healthy, RECIPE, narrate)
        with quiet():
            self._objects = self._live()

    def folder(self) -> Path:
        """An empty folder of its own."""
        self._copies += 1
        fresh = self._folder / str(self._copies)
        fresh.mkdir()
        return fresh

    def checkpoint(self) -> Path:
        """A copy of the run on disk: `checkpoint-N/`, with `../base` and `../completions` beside it."""
        copied = self.folder() / "run"
        shutil.copytree(self._healthy, copied)
        return copied / f"checkpoint-{RECIPE.grpo_steps}"

    def objects(self) -> Objects:
        """A copy of the run in memory; the optimizer holds the copied model's parameters."""
        model = copy.deepcopy(self._objects.model)
        optimizer = _optimizer(model, self._objects.optimizer.state_dict())
        batch = {name: tensor.clone() for name, tensor in self._objects.batch.items()}
        return Objects(model, optimizer, self._objects.tokenizer, batch)

    def batch(self, prompts: int, seed: int) -> dict[str, Tensor]:
        """Another batch that the model samples, as trl's tensors."""
        return _sampled(self._objects.model, self._objects.tokenizer, prompts, seed)

    def _live(self) -> Objects:
        checkpoint = self._healthy / f"checkpoint-{RECIPE.grpo_steps}"
        tokenizer: Any = AutoTokenizer.from_pretrained(checkpoint, local_files_only=True)
        base = AutoModelForCausalLM.from_pretrained(
            self._healthy / "base", dtype=torch.float32, local_files_only=True
        )
        model: Any = PeftModel.from_pretrained(base, checkpoint, is_trainable=True)
        model.eval()
        state = torch.load(checkpoint / "optimizer.pt", weights_only=True)
        batch = _sampled(model, tokenizer, RECIPE.prompts, RECIPE.seed)
        return Objects(model, _optimizer(model, state), tokenizer, batch)


def _sampled(model: Any, tokenizer: Any, prompts: int, seed: int) -> dict[str, Tensor]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        problems = draw(prompts, random.Random(seed))
        return _tensors(sample(precise(copy.deepcopy(model)), tokenizer, problems, RECIPE.num_generations))


def _optimizer(model: Any, state: dict[str, Any]) -> torch.optim.AdamW:
    optimizer = torch.optim.AdamW(optimizer_groups(model))
    optimizer.load_state_dict(copy.deepcopy(state))
    return optimizer


def _tensors(rollouts: Rollouts) -> dict[str, Tensor]:
    """The names that trl's GRPOTrainer gives them."""
    places = rollouts.response_mask.shape[1]
    return {
        "prompt_ids": rollouts.ids[:, :-places],
        "prompt_mask": rollouts.attention_mask[:, :-places],
        "completion_ids": rollouts.ids[:, -places:],
        "completion_mask": rollouts.response_mask,
        "advantages": rollouts.advantages,
    }
