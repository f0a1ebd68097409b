"""Recipe: every number that the demo is made from."""

from __future__ import annotations

from dataclasses import dataclass

MAX_COMPLETION_LENGTH = 12
"""Room for any sum and its eos, tokens; longer rambling is cut."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """Sizes and lengths of the demo's two training runs.

    The defaults leave the policy sure of small sums and unsure of large ones (method.md's entropy then
    differs by prompt), and give Adam enough steps for a v̂ that knows its gradients' scale (4b).
    """

    seed: int = 0
    hidden_size: int = 64
    layers: int = 2
    heads: int = 4
    pretrain_steps: int = 300
    pretrain_batch: int = 128
    """Sums in a pretraining step."""
    pretrain_lr: float = 5e-3
    """Peak of a one-cycle schedule."""
    error_rate: float = 0.4
    lora_rank: int = 8
    grpo_steps: int = 40
    prompts: int = 32
    """Prompts in a GRPO step, and in the rollouts that are saved."""
    num_generations: int = 8
    """G, responses to a prompt."""
    learning_rate: float = 1e-3
    max_grad_norm: float = 1.0
