"""Makes the demo: a base model, a GRPO run on it, and rollouts of its last weights."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from transformers import get_constant_schedule

from probe_engine.demo.base_model import character_tokenizer, pretrained
from probe_engine.demo.grpo import sample, train
from probe_engine.demo.recipe import Recipe
from probe_engine.demo.digits import draw
from probe_engine.demo.trainer_layout import optimizer_groups, save_checkpoint, save_completions


def build(folder: Path, recipe: Recipe, narrate: Callable[[str], None]) -> None:
    """Writes `base/`, `checkpoint-N/` and `completions/` into an empty folder.

    One recipe gives the same weights on one machine. The caller's random state is left as it was.
    """
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(recipe.seed)
        tokenizer = character_tokenizer()
        narrate(f"pretraining a {recipe.layers}-layer transformer on sums, {recipe.pretrain_steps} steps")
        base = pretrained(recipe, tokenizer)
        base.save_pretrained(folder / "base")
        tokenizer.save_pretrained(folder / "base")

        adapter = LoraConfig(
            task_type="CAUSAL_LM", r=recipe.lora_rank, lora_alpha=2 * recipe.lora_rank, target_modules="all-linear"
        )
        policy = get_peft_model(base, adapter).eval()
        optimizer = torch.optim.AdamW(optimizer_groups(policy), lr=recipe.learning_rate)
        scheduler = get_constant_schedule(optimizer)
        rng = random.Random(recipe.seed + 1)
        log = []
        for row in train(policy, tokenizer, optimizer, scheduler, recipe, rng):
            log.append(row)
            if len(log) in (1, recipe.grpo_steps // 2, recipe.grpo_steps):
                narrate(
                    f"GRPO step {len(log)} of {recipe.grpo_steps}: {row['reward']:.0%} right, "
                    f"entropy {row['entropy']:.2f} nats per token"
                )
        step = len(log)
        save_checkpoint(folder / f"checkpoint-{step}", policy, tokenizer, optimizer, scheduler, log, recipe)
        rollouts = sample(policy, tokenizer, draw(recipe.prompts, rng), recipe.num_generations)
        # trl logs a step's rollouts after its update: those of checkpoint N's weights bear N + 1.
        save_completions(folder / "completions", step + 1, rollouts)
