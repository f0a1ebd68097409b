"""The precision that a model computes in, and what rounding explains."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import nn

SHIFT = {torch.float64: 1e-4, torch.float32: 1e-4, torch.float16: 0.02, torch.bfloat16: 0.1}
"""Nats a token that rounding explains. Healthy models were seen at 2e-7, 2e-6, 6e-3 and 5e-2, faults from
0.15 up; only experts that are chosen otherwise in 16 bits reach as far."""


def coarsest(model: nn.Module, outputs: Collection[torch.dtype]) -> torch.dtype:
    """The least precise floating-point dtype among weights and modules' outputs in one forward.

    A float32 adapter on a bfloat16 base, and float32 weights under an autocast inside of the forward,
    compute no better than bfloat16.

    Args:
        outputs: dtypes of the modules' outputs, as a `Walk` saw them.
    """
    weights = {p.dtype for p in model.parameters() if p.is_floating_point()}
    return max(weights | set(outputs), key=lambda dtype: torch.finfo(dtype).eps)


def tolerance(dtype: torch.dtype) -> float:
    """Nats a token by which rounding may move log π."""
    return SHIFT.get(dtype, SHIFT[torch.bfloat16])
