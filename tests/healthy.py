"""Healthy tiny runs of many architectures and adapters, as transformers, peft and the Trainer write them."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import written
from peft import IA3Config, LoraConfig, PeftConfig, VeraConfig, get_peft_model
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, Trainer
from transformers.pytorch_utils import Conv1D
from trl import GRPOConfig

VOCABULARY = 16
"""So small that every token is sampled in every step: no coordinate's v̂ is stale."""
PROMPTS, RESPONSES, PROMPT_LENGTH, LIMIT = 12, 4, 4, 6
STEPS = 3
LEARNING_RATE = 2e-4
"""So small that the importance weights stay near 1."""
EOS = 1

_SIZES = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "attention_dropout": 0.0,
}
_GPT = {"n_embd": 16, "n_layer": 2, "n_head": 4, "n_positions": 64}
_GPT |= {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
_MAMBA = {"hidden_size": 16, "num_hidden_layers": 2, "state_size": 4, "time_step_rank": 4}
_HALF_ROTARY = {"partial_rotary_factor": 0.5}
_EXPERTS = {
    "num_local_experts": 3,
    "num_experts": 3,
    "num_experts_per_tok": 2,
    "router_aux_loss_coef": 0.0,
}
_LATENT = {
    "num_key_value_heads": 4,
    "q_lora_rank": 8,
    "kv_lora_rank": 8,
    "qk_rope_head_dim": 4,
    "qk_nope_head_dim": 4,
    "v_head_dim": 4,
    "n_routed_experts": 4,
    "n_shared_experts": 1,
    "num_experts_per_tok": 2,
    "n_group": 2,
    "topk_group": 1,
    "moe_intermediate_size": 12,
    "first_k_dense_replace": 1,
}
_RWKV = {
    "hidden_size": 16,
    "attention_hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "context_length": 64,
}
_DELTA_NET = {
    "head_dim": 8,
    "moe_intermediate_size": 12,
    "shared_expert_intermediate_size": 12,
    "layer_types": ["linear_attention", "full_attention"],
    "linear_key_head_dim": 4,
    "linear_value_head_dim": 4,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 2,
}

ARCHITECTURES: dict[str, dict[str, Any]] = {
    # Dense transformers with rotary positions.
    "llama": _SIZES,
    "qwen2": _SIZES,
    "qwen3": _SIZES | {"head_dim": 8},
    "gemma2": _SIZES | {"head_dim": 8},
    "gemma3_text": _SIZES | {"head_dim": 8},
    "mistral": _SIZES,
    "phi3": _SIZES,
    "gpt_neox": _SIZES | _HALF_ROTARY,
    "olmo2": _SIZES,
    "granite": _SIZES,
    "stablelm": _SIZES | _HALF_ROTARY,
    "starcoder2": _SIZES | {"residual_dropout": 0.0, "embedding_dropout": 0.0},
    "cohere": _SIZES | {"logit_scale": 1.0},
    "smollm3": _SIZES,
    "glm4": _SIZES | {"head_dim": 8},
    "nemotron": _SIZES,
    # Learned positions, or ALiBi.
    "gpt2": _GPT,
    "opt": _SIZES | {"ffn_dim": 24, "word_embed_proj_dim": 16, "dropout": 0.0},
    "bloom": {"hidden_size": 16, "n_layer": 2, "n_head": 4},
    "falcon": _SIZES,
    # Mixtures of experts.
    "mixtral": _SIZES | _EXPERTS,
    "qwen2_moe": _SIZES | _EXPERTS | {"moe_intermediate_size": 12, "shared_expert_intermediate_size": 12},
    "qwen3_moe": _SIZES | _EXPERTS | {"moe_intermediate_size": 12, "head_dim": 8},
    "deepseek_v3": _SIZES | _LATENT,
    # Recurrent, or partly.
    "mamba": _MAMBA,
    "falcon_mamba": _MAMBA,
    "mamba2": _MAMBA | {"num_heads": 4, "head_dim": 8, "n_groups": 1, "chunk_size": 4},
    "rwkv": _RWKV,
    "qwen3_next": _SIZES | _EXPERTS | _DELTA_NET,
}

ADAPTERS = ("full", "LoRA", "DoRA", "modules_to_save", "IA3", "VeRA")


def base(architecture: str, folder: Path) -> Any:
    """A random model with some opinion on what comes next, saved and read back as an adapter's base is."""
    torch.manual_seed(0)
    ends = {"bos_token_id": EOS, "eos_token_id": EOS, "pad_token_id": 0}
    config = AutoConfig.for_model(architecture, vocab_size=VOCABULARY, **ends, **ARCHITECTURES[architecture])
    model: Any = AutoModelForCausalLM.from_config(config)
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Embedding | Conv1D):
            nn.init.normal_(module.weight, 0, 0.2)
    model.save_pretrained(folder)
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def with_adapter(model: Any, adapter: str) -> Any:
    """A copy of the base with a fresh adapter on all that this kind of adapter can stand on."""
    fresh = copy.deepcopy(model)
    if adapter == "full":
        return fresh
    wrapped = get_peft_model(fresh, _adapter_config(fresh, adapter))
    for name, parameter in wrapped.named_parameters():
        if "lora_B" in name or "vera_lambda_b" in name:  # 0 would keep the gradients of the others near 0
            nn.init.normal_(parameter, 0, 0.1)
    return wrapped


def _adapter_config(model: Any, adapter: str) -> PeftConfig:
    targets = linear_layers(model)
    head = next(name for name, module in model.named_modules() if module is model.get_output_embeddings())
    # In mixtures of experts peft takes an MLP's linear layers for experts by their names.
    plain = [name for name in targets if not (".mlp." in name and expert_weights(model))]
    lora = {"r": 2, "lora_alpha": 4, "target_modules": plain, "task_type": "CAUSAL_LM"}
    match adapter:
        case "LoRA":
            return LoraConfig(**lora, target_parameters=expert_weights(model) or None)
        case "DoRA":
            return LoraConfig(**lora, use_dora=True)
        case "modules_to_save":
            return LoraConfig(**lora, modules_to_save=[head.rsplit(".", 1)[-1]])
        case "IA3":
            second = [name for name in targets if name.endswith(_SECOND_OF_MLP)]
            return IA3Config(target_modules=targets, feedforward_modules=second, task_type="CAUSAL_LM")
        case "VeRA":
            return VeraConfig(r=4, target_modules=targets, task_type="CAUSAL_LM")
    raise ValueError(adapter)


_SECOND_OF_MLP = ("down_proj", "fc2", "fc_out", "dense_4h_to_h", "mlp.c_proj")


def linear_layers(model: Any) -> list[str]:
    """All linear layers but the head, without those of Mamba that peft refuses."""
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | Conv1D)
        and module is not model.get_output_embeddings()
        and not (
            name.endswith("dt_proj") or ("mamba" in model.config.model_type and name.endswith("out_proj"))
        )
    ]


def expert_weights(model: Any) -> list[str]:
    """The experts' stacked weights, [experts, out, in]: parameters that belong to no linear layer."""
    return [name for name, p in model.named_parameters() if p.dim() == 3 and ".experts." in name]


@dataclass(frozen=True)
class Healthy:
    """A checkpoint that nothing is wrong with, and what only the live trainer knows."""

    checkpoint: Path
    model: Any
    exp_avg_sq: dict[str, Tensor]
    """By parameter name, from the live optimizer by object identity."""


def train(model: Any, folder: Path) -> Healthy:
    """True policy-gradient steps on fresh samples of the policy itself, then what the Trainer saves.

    Writes `folder/checkpoint-N`, and `folder/rollouts/{N+1}.jsonl` sampled from the very weights in it.
    """
    arguments = GRPOConfig(
        output_dir=str(folder),
        use_cpu=True,
        bf16=False,
        report_to=[],
        disable_tqdm=True,
        learning_rate=LEARNING_RATE,
        lr_scheduler_type="constant",
        loss_type="dr_grpo",
        scale_rewards="none",
        max_completion_length=LIMIT,
        num_generations=RESPONSES,
        per_device_train_batch_size=PROMPTS * RESPONSES,
    )
    trainer = Trainer(model=model, args=arguments, processing_class=written.tokenizer(VOCABULARY))
    trainer.create_optimizer_and_scheduler(STEPS)
    trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
    generator = torch.Generator().manual_seed(1)
    model.eval()
    for _ in range(STEPS):
        tokens, mask, advantages = sample(model, generator)
        log_probs = model(input_ids=tokens).logits[:, PROMPT_LENGTH - 1 : -1].log_softmax(-1)
        chosen = log_probs.gather(2, tokens[:, PROMPT_LENGTH:, None]).squeeze(2)
        loss = -(advantages * (chosen * mask).sum(1)).mean() / LIMIT
        loss.backward()
        nn.utils.clip_grad_norm_(trainable.values(), arguments.max_grad_norm)
        trainer.optimizer.step()
        trainer.optimizer.zero_grad()
    trainer.state.global_step = STEPS
    trainer._save_checkpoint(model, None)
    checkpoint = folder / f"checkpoint-{STEPS}"
    rollouts(checkpoint).parent.mkdir()
    lines = (json.dumps(row) + "\n" for row in _rows(*sample(model, generator)))
    rollouts(checkpoint).write_text("".join(lines))
    state = trainer.optimizer.state
    return Healthy(
        checkpoint,
        model,
        {name: state[p]["exp_avg_sq"].clone() for name, p in trainable.items()},
    )


def rollouts(checkpoint: Path) -> Path:
    """The file of the rollouts that the checkpoint's weights sampled, a prompt's responses together."""
    return checkpoint.parent / "rollouts" / f"{STEPS + 1}.jsonl"


@torch.no_grad()
def sample(model: Any, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Responses to fresh prompts, at temperature 1.

    Returns:
        tokens [N, PROMPT_LENGTH + LIMIT], mask [N, LIMIT] of what belongs to the response (its eos too),
        advantages [N]: the mean token id in units of the vocabulary, centred within the prompt.
    """
    prompts = torch.randint(2, VOCABULARY, (PROMPTS, PROMPT_LENGTH), generator=generator)
    tokens = prompts.repeat_interleave(RESPONSES, 0)
    for _ in range(LIMIT):
        probabilities = model(input_ids=tokens).logits[:, -1].softmax(-1)
        tokens = torch.cat([tokens, torch.multinomial(probabilities, 1, generator=generator)], 1)
    is_eos = tokens[:, PROMPT_LENGTH:] == EOS
    mask = (is_eos.cumsum(1) - is_eos.long() == 0).float()
    rewards = ((tokens[:, PROMPT_LENGTH:] * mask).sum(1) / mask.sum(1) / VOCABULARY).view(PROMPTS, RESPONSES)
    return tokens, mask, (rewards - rewards.mean(1, keepdim=True)).flatten()


def _rows(tokens: Tensor, mask: Tensor, advantages: Tensor) -> Iterator[dict[str, Any]]:
    for index, (row, length, advantage) in enumerate(
        zip(tokens.tolist(), mask.sum(1).int().tolist(), advantages.tolist(), strict=True)
    ):
        response = row[PROMPT_LENGTH : PROMPT_LENGTH + length]
        yield {
            "prompt_id": str(index // RESPONSES),
            "prompt_tokens": row[:PROMPT_LENGTH],
            "response_tokens": response,
            "advantage": advantage,
            "terminated": response[-1] == EOS,
            "step": STEPS + 1,
        }
