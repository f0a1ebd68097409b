"""Checkpoints that trl's real GRPOTrainer writes, with the truth that only the live trainer knows."""

from __future__ import annotations

import json
import string
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import reasoning_gym
import tiny
import torch
from datasets import Dataset
from peft import LoraConfig
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast
from trl import GRPOConfig, GRPOTrainer

STEP = 3
"""The checkpoint that is probed unless a test says another; its weights sampled the completions of step 4."""
KINDS = ("llama-lora", "gpt2-full-tied", "qwen2-dora")


@dataclass(frozen=True)
class TrlRun:
    """A finished run."""

    kind: str
    checkpoint: Path
    base: Path | None
    state_by_name: dict[str, dict[str, torch.Tensor]]
    """Adam's moments there by parameter name, taken from the live optimizer by object identity."""
    batch: dict[str, torch.Tensor]
    """What its weights sampled, as the trainer's own tensors: the text has lost special tokens."""
    arguments: dict[str, Any]
    """What `grpo_trainer` was given."""

    @property
    def step(self) -> int:
        """The checkpoint's."""
        return int(self.checkpoint.name.removeprefix("checkpoint-"))

    @property
    def next_checkpoint(self) -> Path:
        """One true step later."""
        return self.checkpoint.with_name(f"checkpoint-{self.step + 1}")

    def token_rollouts(self, path: Path) -> Path:
        """The batch in the native format, with token ids."""
        b = self.batch
        lines = [
            {
                "prompt_tokens": prompt[prompt_mask.bool()].tolist(),
                "response_tokens": completion[mask.bool()].tolist(),
                "advantage": float(advantage),
            }
            for prompt, prompt_mask, completion, mask, advantage in zip(
                b["prompt_ids"],
                b["prompt_mask"],
                b["completion_ids"],
                b["completion_mask"],
                b["advantages"],
                strict=True,
            )
        ]
        path.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
        return path


def character_tokenizer() -> PreTrainedTokenizerFast:
    """One token a character: text tokenises back into the tokens that were sampled."""
    characters = string.ascii_letters + string.digits + " .,?!:;+-*/=()'\"%$\n"
    vocabulary = {"<pad>": 0, "<eos>": 1, "<unk>": 2} | {c: i + 3 for i, c in enumerate(characters)}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    inner.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>", padding_side="left"
    )


def digits(completions: list[str], **_: Any) -> list[float]:
    """Share of digits: a reward that differs within every group."""
    return [sum(c.isdigit() for c in text) / max(len(text), 1) for text in completions]


def questions(count: int) -> list[str]:
    """Verifiable prompts of many lengths, the same ones each time."""
    return [p["question"] for p in reasoning_gym.create_dataset("basic_arithmetic", size=count, seed=7)]


def grpo_trainer(
    kind: str,
    folder: Path,
    trainer_class: type[GRPOTrainer] = GRPOTrainer,
    prompts: Sequence[str] | None = None,
    **arguments: Any,
) -> GRPOTrainer:
    """A real trainer of a tiny model, not yet started; a base model for adapters is saved at `folder/base`.

    Args:
        kind: model, and what of it trains.
        folder: for the base and the run.
        trainer_class: GRPOTrainer, or one that overrides a part of it.
        prompts: to draw from; the beginnings of some questions by default.
        arguments: of GRPOConfig, besides those of every run here or instead of them.
    """
    tokenizer = character_tokenizer()
    name = kind.split("-")[0]
    size = {"vocab_size": len(tokenizer), "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 1}
    long = {"n_positions": 256} if name == "gpt2" else {"max_position_embeddings": 256}
    quiet = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0} if name == "gpt2" else {}
    model = tiny.model(name, **size, **long, **quiet)
    adapter = None
    base = None
    if "full" not in kind:
        base = folder / "base"
        model.save_pretrained(base)
        tokenizer.save_pretrained(base)
        adapter = LoraConfig(
            r=4, lora_alpha=8, target_modules="all-linear", use_dora="dora" in kind, task_type="CAUSAL_LM"
        )
    usual: dict[str, Any] = {
        "per_device_train_batch_size": 32,
        "num_generations": 4,
        "max_completion_length": 12,
        "learning_rate": 1e-3,
        "lr_scheduler_type": "constant",
        "loss_type": "dapo",
        "report_to": [],
        "disable_tqdm": True,
        "seed": 0,
    }
    config = GRPOConfig(output_dir=str(folder / "run"), use_cpu=True, bf16=False, **(usual | arguments))
    return trainer_class(
        model=str(base) if base else model,
        reward_funcs=digits,
        args=config,
        train_dataset=Dataset.from_dict({"prompt": list(prompts or (q[:24] for q in questions(24)))}),
        processing_class=tokenizer,
        peft_config=adapter,
    )


def train(kind: str, folder: Path, *, step: int = STEP, **arguments: Any) -> TrlRun:
    """True GRPO steps, a checkpoint after each, to one beyond `step`.

    Args:
        arguments: of `grpo_trainer`.
    """
    usual = {"save_steps": 1, "logging_steps": 1, "log_completions": True}
    trainer = grpo_trainer(kind, folder, max_steps=step + 1, **(usual | arguments))
    truth: dict[str, dict[str, torch.Tensor]] = {}
    batch: dict[str, torch.Tensor] = {}
    save, sample = trainer._save_checkpoint, trainer._generate_and_score_completions

    def sample_and_remember(*args: Any, **kwargs: Any) -> Any:
        sampled = sample(*args, **kwargs)
        if trainer.state.global_step == step:
            batch.update({k: v.clone() for k, v in sampled.items() if isinstance(v, torch.Tensor)})
        return sampled

    def save_and_remember(*args: Any, **kwargs: Any) -> None:
        save(*args, **kwargs)
        if trainer.state.global_step == step:
            names = {id(p): n for n, p in trainer.model.named_parameters()}
            optimizer = getattr(trainer.optimizer, "optimizer", trainer.optimizer)
            for p, state in optimizer.state.items():
                truth[names[id(p)]] = {k: torch.as_tensor(v).clone() for k, v in state.items()}

    trainer._save_checkpoint = save_and_remember
    trainer._generate_and_score_completions = sample_and_remember
    trainer.train()
    base = folder / "base"
    checkpoint = folder / "run" / f"checkpoint-{step}"
    return TrlRun(kind, checkpoint, base if base.exists() else None, truth, batch, arguments)


def resume(run: TrlRun, folder: Path) -> Path:
    """The very same trainer, loaded from the run's checkpoint, takes one more step on the batch.

    Returns:
        The checkpoint that it writes then.
    """
    trainer = grpo_trainer(
        run.kind, folder, max_steps=run.step + 1, save_steps=1, **(run.arguments | {"log_completions": False})
    )
    trainer._generate_and_score_completions = lambda _inputs: {k: v.clone() for k, v in run.batch.items()}
    trainer.train(resume_from_checkpoint=str(run.checkpoint))
    return folder / "run" / run.next_checkpoint.name
