"""The models that are measured on."""

from __future__ import annotations

from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import AutoModelForCausalLM, LlamaConfig


def base(name: str, cache: Path) -> nn.Module:
    """SmolLM2-135M, or a Llama of 5 million random weights; in float32."""
    if name == "tiny":
        config = LlamaConfig(
            vocab_size=2048,
            hidden_size=256,
            intermediate_size=704,
            num_hidden_layers=6,
            num_attention_heads=4,
            num_key_value_heads=2,
            tie_word_embeddings=True,
        )
        return AutoModelForCausalLM.from_config(config)
    from smollm2 import base_model  # trl and reasoning-gym come with it

    return AutoModelForCausalLM.from_pretrained(base_model(cache / "base"), dtype=torch.float32)


def adapted(model: nn.Module, *, full: bool) -> nn.Module:
    """As it is, or with an adapter whose B is not 0."""
    if full:
        return model
    config = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
    wrapped = get_peft_model(model, config)
    for name, parameter in wrapped.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(0, 0.01)
    return wrapped
