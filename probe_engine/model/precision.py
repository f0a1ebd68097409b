"""The precision that a model computes in."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import nn


def coarsest(model: nn.Module, outputs: Collection[torch.dtype]) -> torch.dtype:
    """The least precise floating-point dtype among weights and modules' outputs in one forward.

    A float32 adapter on a bfloat16 base, and float32 weights under an autocast inside of the forward,
    compute no better than bfloat16.

    Args:
        outputs: dtypes of the modules' outputs, as a `Walk` saw them.
    """
    weights = {p.dtype for p in model.parameters() if p.is_floating_point()}
    return max(weights | set(outputs), key=lambda dtype: torch.finfo(dtype).eps)
