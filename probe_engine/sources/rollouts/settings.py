"""What the options and the trainer's arguments say about a batch, and who said it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast, get_args

from probe_engine.spec import LossType, RunSpec, ScaleRewards
from probe_engine.types import Scalar

Trainer = Mapping[str, Scalar]
DEFAULT_LENGTH = 256
"""Tokens, where neither the option nor the trainer says how long a sampled response may be."""


def completion_limit(spec: RunSpec, trainer: Trainer) -> tuple[int | None, str]:
    """The trainer's max completion length, tokens (None where nobody says it), and the origin of L_max."""
    if spec.max_completion_length is not None:
        return spec.max_completion_length, "option"
    said = _count(trainer, "max_completion_length")
    return said, "longest response" if said is None else "training_args.bin"


def num_generations(trainer: Trainer) -> int | None:
    """The trainer's G."""
    return _count(trainer, "num_generations")


def loss_type(spec: RunSpec, trainer: Trainer) -> LossType:
    """The option, else the trainer's where the probe knows its κ, else dr_grpo."""
    said = spec.loss_type or trainer.get("loss_type")
    return cast(LossType, said) if said in get_args(LossType) else "dr_grpo"


def reward_scaling(spec: RunSpec, trainer: Trainer) -> tuple[ScaleRewards, str]:
    """How rewards become advantages: the option, else the trainer's (a bool in older trl), else "group"."""
    if spec.scale_rewards is not None:
        return spec.scale_rewards, "option"
    said = trainer.get("scale_rewards")
    if isinstance(said, bool):
        said = "group" if said else "none"
    if said in get_args(ScaleRewards):
        return cast(ScaleRewards, said), "trainer"
    return "group", "default"


def _count(trainer: Trainer, name: str) -> int | None:
    said = trainer.get(name)
    return said if isinstance(said, int) and not isinstance(said, bool) and said > 0 else None
