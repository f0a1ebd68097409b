"""Recipe: every size and length that the demo is made with."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Recipe:
    """Sizes and lengths of the demo's two training runs.

    The defaults were chosen over several seeds: δH₁'s interval excludes 0 with and without the split,
    the step stays where first order holds, and v̂ has seen gradients enough not to be stale (4b).
    """

    seed: int = 0
    hidden_size: int = 64
    layers: int = 2
    heads: int = 4
    pretrain_steps: int = 400
    pretrain_batch: int = 64
    """Problems in a pretraining step."""
    pretrain_lr: float = 5e-3
    """Peak of a one-cycle schedule."""
    lora_rank: int = 4
    grpo_steps: int = 30
    prompts: int = 64
    """B, prompts in a GRPO step and in the rollouts that are saved."""
    num_generations: int = 8
    """G, responses to a prompt."""
    learning_rate: float = 1e-4
    max_grad_norm: float = 1.0
