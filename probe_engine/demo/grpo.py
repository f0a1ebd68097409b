"""GRPO at its plainest: sample, verify, compare within the group, one AdamW step.

What trl's GRPOTrainer does with `loss_type="dr_grpo"`, `scale_rewards="none"`, `beta=0` and one update a
batch. The clipped ratio is then 1 and the loss is −mean A·S/L_max (arXiv 2503.20783).
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from probe_engine.demo.digits import MAX_COMPLETION_LENGTH, Problem, correct, draw
from probe_engine.demo.recipe import Recipe


@dataclass(frozen=True)
class Rollouts:
    """B groups of G responses at temperature 1. N = B·G rows, a group's rows together."""

    problems: list[Problem]
    """[N], the problem of each row."""
    completions: list[str]
    """[N], eos stripped."""
    rewards: Tensor
    """[N]"""
    advantages: Tensor
    """[N], reward minus its group's mean."""
    ids: Tensor
    """[N, T], prompts padded on the left, responses on the right."""
    attention_mask: Tensor
    """[N, T], 1 on the prompt and the response."""
    response_mask: Tensor
    """[N, R], 1 on the response, its eos included; the last R of the T places."""


def sample(model: Any, tokenizer: Any, problems: list[Problem], generations: int) -> Rollouts:
    """`generations` responses to each problem, sampled from the model as it is, and scored."""
    rows = [problem for problem in problems for _ in range(generations)]
    prompts = tokenizer([p.prompt for p in rows], padding=True, return_tensors="pt")
    ids: Tensor = model.generate(
        input_ids=prompts["input_ids"],
        attention_mask=prompts["attention_mask"],
        do_sample=True,
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        max_new_tokens=MAX_COMPLETION_LENGTH,
    )
    responses = ids[:, prompts["input_ids"].shape[1] :]
    is_eos = responses == tokenizer.eos_token_id
    # Up to and including the first eos: places with no eos before them.
    response_mask = (is_eos.cumsum(1) - is_eos.long() == 0).long()
    completions = [
        tokenizer.decode(response[kept])
        for response, kept in zip(responses, response_mask.bool() & ~is_eos, strict=True)
    ]
    rewards = torch.tensor([correct(p, c) for p, c in zip(rows, completions, strict=True)])
    group_means = rewards.view(-1, generations).mean(1).repeat_interleave(generations)
    return Rollouts(
        problems=rows,
        completions=completions,
        rewards=rewards,
        advantages=rewards - group_means,
        ids=ids,
        attention_mask=torch.cat([prompts["attention_mask"], response_mask], 1),
        response_mask=response_mask,
    )


def next_token_log_probs(model: Any, rollouts: Rollouts) -> Tensor:
    """log π(· given what came before) at each response place, [N, R, V], nats."""
    position_ids = (rollouts.attention_mask.cumsum(1) - 1).clamp(min=0)
    logits: Tensor = model(
        input_ids=rollouts.ids, attention_mask=rollouts.attention_mask, position_ids=position_ids
    ).logits
    places = rollouts.response_mask.shape[1]
    return logits[:, -places - 1 : -1].log_softmax(-1)


def train(
    model: Any,
    tokenizer: Any,
    optimizer: torch.optim.Optimizer,
    scheduler: torch.optim.lr_scheduler.LRScheduler,
    recipe: Recipe,
    rng: random.Random,
) -> Iterator[dict[str, float]]:
    """`grpo_steps` steps, each on fresh prompts; yields a step's log under the Trainer's names."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    for _ in range(recipe.grpo_steps):
        rollouts = sample(model, tokenizer, draw(recipe.prompts, rng), recipe.num_generations)
        mask = rollouts.response_mask
        log_probs = next_token_log_probs(model, rollouts)
        tokens = rollouts.ids[:, -mask.shape[1] :, None]
        s = (log_probs.gather(2, tokens).squeeze(2) * mask).sum(1)
        loss = -(rollouts.advantages * s).mean() / MAX_COMPLETION_LENGTH
        learning_rate = float(scheduler.get_last_lr()[0])
        optimizer.zero_grad()
        loss.backward()
        grad_norm = torch.nn.utils.clip_grad_norm_(parameters, recipe.max_grad_norm)
        optimizer.step()
        scheduler.step()
        entropies = -(log_probs.exp() * log_probs).sum(2).detach()
        yield {
            "loss": loss.item(),
            "grad_norm": grad_norm.item(),
            "learning_rate": learning_rate,
            "reward": rollouts.rewards.mean().item(),
            "reward_std": rollouts.rewards.view(-1, recipe.num_generations).std(1).mean().item(),
            "entropy": ((entropies * mask).sum() / mask.sum()).item(),
        }
