"""Tiny models, batches and optimizer states for tests."""

from __future__ import annotations

from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
)

from probe_engine.registry import ParameterRegistry
from probe_engine.sources.checkpoints.live import read_optimizer
from probe_engine.types import Batch, Group, Policy, Response, Unit

VOCABULARY = 32

PLAIN: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
}
CONFIGS: dict[str, dict[str, Any]] = {
    "llama": PLAIN | {"num_key_value_heads": 2},
    "gpt2": {
        "vocab_size": VOCABULARY,
        "n_embd": 16,
        "n_layer": 2,
        "n_head": 4,
        "n_positions": 64,
        "bos_token_id": 0,
        "eos_token_id": 1,
    },
    "qwen2": PLAIN | {"num_key_value_heads": 2},
    "gemma": PLAIN | {"num_key_value_heads": 2, "head_dim": 4},
    "phi": PLAIN,
    "mixtral": PLAIN | {"num_key_value_heads": 2, "num_local_experts": 4, "num_experts_per_tok": 2},
    "opt": PLAIN | {"ffn_dim": 24, "word_embed_proj_dim": 16},
    "gpt_neox": PLAIN,
}


def model(
    kind: str = "llama", *, dtype: torch.dtype = torch.float32, seed: int = 0, **changes: Any
) -> nn.Module:
    """A random model whose logits are far from uniform, so that entropies differ."""
    torch.manual_seed(seed)
    config = AutoConfig.for_model(kind, **(CONFIGS[kind] | changes))
    built = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa")
    for parameter in built.parameters():
        if parameter.dim() > 1:
            parameter.data.normal_(0, 0.25)
    return cast(built, dtype).eval()


def with_lora(base: nn.Module, *, seed: int = 1, **changes: Any) -> nn.Module:
    """A trained-looking adapter: lora_B is not 0."""
    torch.manual_seed(seed)
    targets = ["c_attn", "c_proj"] if hasattr(base, "transformer") else ["q_proj", "v_proj", "down_proj"]
    config = LoraConfig(
        **({"r": 3, "lora_alpha": 6, "target_modules": targets, "task_type": "CAUSAL_LM"} | changes)
    )
    wrapped = get_peft_model(base, config)
    for name, parameter in wrapped.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(0, 0.1)
    return wrapped.eval()


def cast(of: nn.Module, dtype: torch.dtype) -> nn.Module:
    """The same weights in another dtype; in float64 the norms compute in float64 as well.

    transformers' RMSNorm computes in float32 whatever the dtype, which would hide errors below 1e-7.
    """
    if dtype == torch.float64:
        for parent in list(of.modules()):
            for name, child in list(parent.named_children()):
                if type(child).__name__.endswith("RMSNorm") and hasattr(child, "variance_epsilon"):
                    exact = nn.RMSNorm(child.weight.shape, eps=child.variance_epsilon)
                    exact.weight = child.weight
                    setattr(parent, name, exact)
    return of.to(dtype)


def batch(
    *,
    sizes: tuple[int, ...] = (4, 4, 3, 4, 2, 4),
    seed: int = 2,
    weighting: Any = "dr_grpo",
    loss_type: Any = "dr_grpo",
    max_length: int = 7,
) -> Batch:
    """Prompts and responses of random lengths, G as `sizes` says; roles alternate."""
    generator = torch.Generator().manual_seed(seed)

    def tokens(low: int, high: int) -> tuple[int, ...]:
        length = int(torch.randint(low, high + 1, (), generator=generator))
        return tuple(torch.randint(0, VOCABULARY, (length,), generator=generator).tolist())

    units = []
    for index, size in enumerate(sizes):
        rewards = torch.rand(size, generator=generator)
        advantages = (rewards - rewards.mean()).tolist()
        responses = tuple(
            Response(tokens=tokens(1, max_length), text="", advantage=a, reward=float(r))
            for a, r in zip(advantages, rewards, strict=True)
        )
        group = Group(id=f"p{index}", text=f"prompt {index}", tokens=tokens(2, 6), responses=responses)
        units.append(Unit(id=group.id, role="E" if index % 2 == 0 else "U", groups=(group,)))
    return Batch(
        units=tuple(units),
        max_completion_length=max_length,
        l_max_origin="option",
        weighting=weighting,
        loss_type=loss_type,
    )


def optimizer(of: nn.Module, *, steps: int = 5, seed: int = 3, lr: float = 1e-3) -> torch.optim.AdamW:
    """An AdamW with a state as after some steps of random gradients; the weights stay."""
    generator = torch.Generator().manual_seed(seed)
    parameters = [p for p in of.parameters() if p.requires_grad]
    built = torch.optim.AdamW(parameters, lr=lr, betas=(0.9, 0.99))
    for p in parameters:
        scale = torch.rand(p.shape, generator=generator).to(p.dtype)
        built.state[p] = {
            "step": torch.tensor(float(steps)),
            "exp_avg": torch.randn(p.shape, generator=generator).to(p.dtype) * 1e-3,
            "exp_avg_sq": (scale * 1e-2).square(),
        }
    return built


def policy(of: nn.Module, **changes: Any) -> Policy:
    """The model with its registry and a live optimizer's state."""
    registry = ParameterRegistry.of(of).trainable
    return Policy(of, registry, None, read_optimizer(optimizer(of, **changes), registry).state)
