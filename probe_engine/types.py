"""What the stages hand on: frozen, valid once built."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor, nn

from probe_engine.registry import ParameterRegistry

Role = Literal["E", "U"]
"""E evaluates (its entropy is probed), U updates (its gradient makes the step)."""

Scalar = bool | int | float | str | None


@dataclass(frozen=True, slots=True)
class Response:
    """One sampled response y. `tokens` include the eos where the response ended itself."""

    tokens: tuple[int, ...]
    text: str
    advantage: float
    reward: float | None = None
    terminated: bool = True
    logprobs: tuple[float, ...] | None = None
    """The behaviour policy's log-probability of each token, nats, where it was recorded."""

    def __post_init__(self) -> None:
        if not self.tokens:
            raise ValueError("a response needs at least one token")


@dataclass(frozen=True, slots=True)
class Group:
    """A prompt and its G ≥ 2 responses."""

    id: str
    """Hash of the prompt's tokens: stable across runs."""
    text: str
    tokens: tuple[int, ...]
    responses: tuple[Response, ...]

    def __post_init__(self) -> None:
        if len(self.responses) < 2:
            raise ValueError("a group needs two responses or more: G = 1 has no leave-one-out mean")
        if not self.tokens:
            raise ValueError("a prompt needs at least one token")


@dataclass(frozen=True, slots=True)
class Unit:
    """What is resampled: a prompt's group (exact mode) or a block of k groups (block mode)."""

    id: str
    role: Role
    groups: tuple[Group, ...]


@dataclass(frozen=True)
class Batch:
    """B units, with the constants that their length weights need."""

    units: tuple[Unit, ...]
    max_completion_length: int
    """L_max of (1) and of κ, tokens."""
    l_max_origin: str
    """Where L_max came from: option, trainer, longest response."""
    weighting: Literal["dr_grpo", "sequence", "per_token"]
    loss_type: Literal["dr_grpo", "grpo", "dapo", "bnpo"]

    @property
    def groups(self) -> tuple[Group, ...]:
        """All groups, in unit order."""
        return tuple(g for u in self.units for g in u.groups)

    @property
    def constant_lambda(self) -> bool:
        """Whether λ is the same for all responses, which is what exact token entropies need."""
        return self.weighting != "per_token"

    @cached_property
    def mean_length(self) -> float:
        """Mean response length, tokens: over prompts, of each group's mean (method.md §2)."""
        means = [sum(len(r.tokens) for r in g.responses) / len(g.responses) for g in self.groups]
        return sum(means) / len(means)


@dataclass(frozen=True, slots=True)
class Extent:
    """The shape of what is scored, as far as it is known before it is read."""

    sequences: int
    """Responses in all."""
    prompt: int
    """Tokens of the longest prompt."""
    response: int
    """Tokens of the longest response."""


@dataclass(frozen=True, slots=True)
class AdamMoments:
    """One parameter's Adam state: exp_avg m, exp_avg_sq v, step t."""

    exp_avg: Tensor
    exp_avg_sq: Tensor
    step: float
    max_exp_avg_sq: Tensor | None = None
    """AMSGrad's, which is then under the root in place of v."""

    @property
    def under_root(self) -> Tensor:
        """What the denominator takes the root of, before bias correction."""
        return self.exp_avg_sq if self.max_exp_avg_sq is None else self.max_exp_avg_sq

    def to(self, device: torch.device) -> AdamMoments:
        """On that device; the very tensors where they are there."""
        largest = self.max_exp_avg_sq
        return replace(
            self,
            exp_avg=self.exp_avg.to(device),
            exp_avg_sq=self.exp_avg_sq.to(device),
            max_exp_avg_sq=None if largest is None else largest.to(device),
        )


@dataclass(frozen=True, slots=True)
class StepRule:
    """What Adam's family does with a parameter group's gradients."""

    lr: float
    betas: tuple[float, float]
    eps: float
    weight_decay: float
    decoupled: bool = True
    """AdamW's weight decay, on the weights; else Adam's, on the gradient."""
    amsgrad: bool = False
    maximize: bool = False


@dataclass(frozen=True)
class OptimizerState:
    """The optimizer's state, by parameter name of the registry."""

    class_name: str
    """`AdamW`, or what is known of it; empty without a state."""
    lr: float | None
    lr_origin: str
    betas: tuple[float, float]
    eps: float
    weight_decay: float
    step: float | None
    moments: Mapping[str, AdamMoments]
    mapped_by: str = ""
    """How indices became names: param_names, position, object, names_list."""
    rules: Mapping[str, StepRule] = field(default_factory=dict)
    """By parameter name, of the group that holds it."""

    def to(self, device: torch.device) -> OptimizerState:
        """With the moments on that device."""
        return replace(self, moments={name: m.to(device) for name, m in self.moments.items()})


@dataclass(frozen=True)
class Policy:
    """The model under probe with all that belongs to it."""

    model: nn.Module
    registry: ParameterRegistry
    """The trainable parameters, in order."""
    tokenizer: Any
    """A transformers tokenizer, or None where ids suffice."""
    optimizer: OptimizerState
    trainer: Mapping[str, Scalar] = field(default_factory=dict)
    """The trainer's plain scalar arguments (`loss_type`, `temperature`, …), as far as known."""
    step: int | None = None
    """Optimizer steps done when the checkpoint was written, where anything tells it."""


@dataclass(frozen=True)
class UnitScalars:
    """What the measurement keeps of a unit: dot products without η (interface.md)."""

    id: str
    role: Role
    x_norm: float
    y_norm: float
    py_norm: float
    x_dot_py: float
    """X_n·P Y_n, the diagonal."""
    x_dot_sum_py: Mapping[Role, float]
    """X_n·P ΣY over the units of each role."""
    py_dot_sum_x: Mapping[Role, float]
    """P Y_n·ΣX over the units of each role."""
