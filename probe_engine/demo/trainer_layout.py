"""Writes a run as the HF Trainer and trl lay it out: `checkpoint-N/` and `completions/`."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from transformers import TrainerState

from probe_engine.demo.digits import MAX_COMPLETION_LENGTH
from probe_engine.demo.grpo import Rollouts
from probe_engine.demo.recipe import Recipe


def optimizer_groups(model: Any) -> list[dict[str, Any]]:
    """The Trainer's two groups: weights, then biases and norms, each in `named_parameters()` order.

    LoRA trains weights only, so that the second group is empty, as in a real LoRA run.
    """
    trainable = [(name, p) for name, p in model.named_parameters() if p.requires_grad]

    def undecayed(name: str) -> bool:
        return "bias" in name or "norm" in name

    return [
        {"params": [p for name, p in trainable if not undecayed(name)], "weight_decay": 0.0},
        {"params": [p for name, p in trainable if undecayed(name)], "weight_decay": 0.0},
    ]


def save_checkpoint(
    folder: Path,
    model: Any,
    tokenizer: Any,
    optimizer: torch.optim.Optimizer,
    scheduler: torch.optim.lr_scheduler.LRScheduler,
    log: list[dict[str, float]],
    recipe: Recipe,
) -> None:
    """`checkpoint-N/`: adapter, tokenizer, optimizer, schedule, state and arguments.

    The base is named relative to this folder: `base/` beside it, wherever the two are moved.
    """
    model.peft_config["default"].base_model_name_or_path = "../base"
    # "auto" would look that name up, relative to the working directory and then on the hub.
    model.save_pretrained(folder, save_embedding_layers=False)
    tokenizer.save_pretrained(folder)
    torch.save(optimizer.state_dict(), folder / "optimizer.pt")
    torch.save(scheduler.state_dict(), folder / "scheduler.pt")
    torch.save(training_arguments(recipe), folder / "training_args.bin")
    TrainerState(
        global_step=len(log),
        max_steps=len(log),
        logging_steps=1,
        save_steps=len(log),
        log_history=[{**row, "step": step} for step, row in enumerate(log, 1)],
    ).save_to_json(str(folder / "trainer_state.json"))


def training_arguments(recipe: Recipe) -> SimpleNamespace:
    """This run in GRPOConfig's words; an object with attributes, as trl pickles one."""
    return SimpleNamespace(
        seed=recipe.seed,
        optim="adamw_torch",
        learning_rate=recipe.learning_rate,
        lr_scheduler_type="constant",
        adam_beta1=0.9,
        adam_beta2=0.999,
        adam_epsilon=1e-8,
        weight_decay=0.0,
        max_grad_norm=recipe.max_grad_norm,
        max_steps=recipe.grpo_steps,
        per_device_train_batch_size=recipe.prompts * recipe.num_generations,
        gradient_accumulation_steps=1,
        steps_per_generation=1,
        logging_steps=1,
        log_completions=True,
        num_generations=recipe.num_generations,
        max_completion_length=MAX_COMPLETION_LENGTH,
        temperature=1.0,
        top_p=1.0,
        top_k=0,
        min_p=None,
        repetition_penalty=1.0,
        use_vllm=False,
        beta=0.0,
        num_iterations=1,
        epsilon=0.2,
        importance_sampling_level="token",
        loss_type="dr_grpo",
        scale_rewards="none",
        mask_truncated_completions=False,
        entropy_coef=0.0,
        top_entropy_quantile=1.0,
        disable_dropout=False,
    )


def save_completions(folder: Path, step: int, rollouts: Rollouts) -> None:
    """`completions_{step:05d}.parquet` in `folder`, the columns that trl logs."""
    folder.mkdir()
    table = pa.table(
        {
            "step": [step] * len(rollouts.completions),
            "prompt": [p.prompt for p in rollouts.problems],
            "completion": rollouts.completions,
            "correct": rollouts.rewards.double().tolist(),
            "advantage": rollouts.advantages.double().tolist(),
        }
    )
    pq.write_table(table, folder / f"completions_{step:05d}.parquet")
