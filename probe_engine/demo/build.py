"""Makes the demo: a base model, a GRPO run from it, and rollouts of the run's last weights."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from transformers import get_constant_schedule
from transformers.utils import logging

from probe_engine.demo.base_model import character_tokenizer, pretrained
from probe_engine.demo.digits import draw
from probe_engine.demo.grpo import sample, train
from probe_engine.demo.recipe import Recipe
from probe_engine.demo.trainer_layout import optimizer_groups, save_checkpoint, save_completions


def build(folder: Path, recipe: Recipe, narrate: Callable[[str], None]) -> None:
    """Writes `base/`, `checkpoint-N/` and `completions/` into an empty folder.

    One recipe gives one run: see `precise`. The caller's random state stays as it was.
    """
    with torch.random.fork_rng(devices=[]), one_thread(), quiet():
        torch.manual_seed(recipe.seed)
        narrate(
            f"pretraining a {recipe.layers}-layer transformer to sort digits: {recipe.pretrain_steps} steps"
        )
        tokenizer = character_tokenizer()
        base = pretrained(recipe, tokenizer)
        base.float().save_pretrained(folder / "base")
        tokenizer.save_pretrained(folder / "base")

        narrate(f"GRPO with LoRA, {recipe.prompts} prompts × {recipe.num_generations} responses a step")
        adapter = LoraConfig(
            task_type="CAUSAL_LM",
            r=recipe.lora_rank,
            lora_alpha=2 * recipe.lora_rank,
            target_modules="all-linear",
        )
        policy: Any = get_peft_model(base.double(), adapter).eval()
        optimizer = torch.optim.AdamW(optimizer_groups(policy), lr=recipe.learning_rate)
        scheduler = get_constant_schedule(optimizer)
        rng = random.Random(recipe.seed + 1)
        log: list[dict[str, float]] = []
        for row in train(policy, tokenizer, optimizer, scheduler, recipe, rng):
            log.append(row)
            if len(log) % 10 == 0:
                narrate(
                    f"GRPO step {len(log)} of {recipe.grpo_steps}: {row['reward']:.0%} right, "
                    f"entropy {row['entropy']:.2f} nats per token"
                )

        policy.float()
        optimizer.load_state_dict(optimizer.state_dict())  # which takes the parameters' dtype
        step = len(log)
        save_checkpoint(folder / f"checkpoint-{step}", policy, tokenizer, optimizer, scheduler, log, recipe)
        # trl logs rollouts after the update that they serve: those of checkpoint N's weights bear N + 1.
        rollouts = sample(policy.double(), tokenizer, draw(recipe.prompts, rng), recipe.num_generations)
        save_completions(folder / "completions", step + 1, rollouts)


@contextmanager
def one_thread() -> Iterator[None]:
    """Matrices this small gain nothing from a second thread, and sums then don't depend on the number.

    Where other programs hold the cores, threads that wait for each other made this ten times slower.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@contextmanager
def quiet() -> Iterator[None]:
    """Keeps progress bars and notices of renamed attributes between libraries off the screen."""
    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        if bars:
            logging.enable_progress_bar()
