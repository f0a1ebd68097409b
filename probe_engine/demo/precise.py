"""Float64 throughout: a run made so is the same on every processor, down to the tokens it samples."""

from __future__ import annotations

from typing import Any

from torch import nn
from transformers.models.llama.modeling_llama import LlamaRMSNorm


def precise(model: Any) -> Any:
    """The Llama itself, cast to float64, and its norms too, which transformers computes in float32 always.

    Processors round float32 differently, and hundreds of steps and samples make another run of that.
    `float()` gives the weights that a checkpoint has.
    """
    for module in list(model.modules()):
        for name, norm in module.named_children():
            if isinstance(norm, LlamaRMSNorm):
                plain = nn.RMSNorm(norm.weight.shape, eps=norm.variance_epsilon)
                plain.weight = norm.weight
                setattr(module, name, plain)
    return model.double()
