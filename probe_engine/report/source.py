"""What was read: tools, checkpoint, optimizer, rollouts."""

from __future__ import annotations

from typing import Literal

import msgspec

from probe_engine.report.findings import Number


class Tool(msgspec.Struct, frozen=True, kw_only=True):
    name: str = "probe-tui"
    version: str


class Environment(msgspec.Struct, frozen=True, kw_only=True):
    python: str
    torch: str
    transformers: str
    peft: str
    device: str
    dtype: str
    threads: int


class OptimizerInfo(msgspec.Struct, frozen=True, kw_only=True):
    class_: str = msgspec.field(name="class")
    lr: Number
    lr_origin: str
    betas: tuple[float, float]
    eps: float
    weight_decay: float
    step: Number
    matched: int
    missing: int
    fallbacks: int
    mapped_by: str = ""


class CheckpointInfo(msgspec.Struct, frozen=True, kw_only=True):
    path: str
    format: str
    kind: Literal["full", "peft"]
    step: int | None
    base: str | None
    trainable_tensors: int
    trainable_parameters: int
    optimizer: OptimizerInfo


class RolloutsInfo(msgspec.Struct, frozen=True, kw_only=True):
    path: str
    format: str
    prompts: int
    responses: int
    tokens: int
    """Response tokens."""
    tokens_from: Literal["ids", "text"]
    max_completion_length: int
    max_completion_length_origin: str
    loss_type: str
    advantages_from: str
    """logged, or how they were computed."""
    step: int | None
    sampled_here: bool
