"""GRPO in its plainest form: sample, verify, compare within the group, one AdamW step.

Follows trl's GRPOTrainer with `loss_type="dr_grpo"`, `scale_rewards="none"`, `beta=0` and one update a
batch, where the clipped ratio is 1 and the loss reduces to −Σ A·S/L_max (arXiv 2503.20783).
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from probe_engine.demo.recipe import MAX_COMPLETION_LENGTH, Recipe
from probe_engine.demo.digits import Problem, correct, draw


@dataclass(frozen=True)
class Rollouts:
    """B groups of G responses, sampled at temperature 1; N = B·G rows, a group's rows together."""

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
    """[N, R], 1 on the response, its eos included."""


def sample(model: Any, tokenizer: Any, problems: list[Problem], generations: int) -> Rollouts:
    """Samples `generations` responses to each problem from the model as it is, and scores them."""
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
    # 1 up to and including the first eos: no eos lies before the token.
    response_mask = (is_eos.cumsum(1) - is_eos.long() == 0).long()
    completions = [
        tokenizer.decode(row[mask.bool() & ~eos])
        for row, mask, eos in zip(responses, response_mask, is_eos, strict=True)
    ]
    rewards = torch.tensor([correct(p, c) for p, c in zip(rows, completions, strict=True)])
    group_mean = rewards.view(-1, generations).mean(1).repeat_interleave(generations)
    return Rollouts(
        problems=rows,
        completions=completions,
        rewards=rewards,
        advantages=rewards - group_mean,
        ids=ids,
        attention_mask=torch.cat([prompts["attention_mask"], response_mask], 1),
        response_mask=response_mask,
    )


def token_log_probs(model: Any, rollouts: Rollouts) -> Tensor:
    """log-softmax over the vocabulary where each response token was drawn, [N, R, V], nats."""
    position_ids = (rollouts.attention_mask.cumsum(1) - 1).clamp(min=0)
    logits: Tensor = model(
        input_ids=rollouts.ids, attention_mask=rollouts.attention_mask, position_ids=position_ids
    ).logits
    return logits[:, -rollouts.response_mask.shape[1] - 1 : -1].log_softmax(-1)


def train(
    model: Any,
    tokenizer: Any,
    optimizer: torch.optim.Optimizer,
    scheduler: torch.optim.lr_scheduler.LRScheduler,
    recipe: Recipe,
    rng: random.Random,
) -> Iterator[dict[str, float]]:
    """`grpo_steps` steps, each on fresh prompts; yields a step's log as the HF Trainer names it."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    for _ in range(recipe.grpo_steps):
        rollouts = sample(model, tokenizer, draw(recipe.prompts, rng), recipe.num_generations)
        log_probs = token_log_probs(model, rollouts)
        tokens = rollouts.ids[:, -rollouts.response_mask.shape[1] :, None]
        # S[n,g] of method.md §1: the log-probability of the whole response.
        s = (log_probs.gather(2, tokens).squeeze(2) * rollouts.response_mask).sum(1)
        loss = -(rollouts.advantages * s).mean() / MAX_COMPLETION_LENGTH
        learning_rate = scheduler.get_last_lr()[0]
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        grad_norm = torch.nn.utils.clip_grad_norm_(parameters, recipe.max_grad_norm)
        optimizer.step()
        scheduler.step()
        entropy = -(log_probs.exp() * log_probs).sum(2).detach()
        yield {
            "loss": loss.item(),
            "grad_norm": grad_norm.item(),
            "learning_rate": learning_rate,
            "reward": rollouts.rewards.mean().item(),
            "reward_std": rollouts.rewards.view(-1, recipe.num_generations).std(1).mean().item(),
            "entropy": (
                (entropy * rollouts.response_mask).sum() / rollouts.response_mask.sum()
            ).item(),
        }
