"""Adopt: the caller's own model and optimizer instead of a checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn


@dataclass(frozen=True)
class LiveObjects:
    """What a training script hands over."""

    model: nn.Module
    optimizer: torch.optim.Optimizer | None
    batch: Any
    tokenizer: Any = None
