"""The precision that a model computes in."""

from __future__ import annotations

import torch
from torch import nn

from probe_engine.model.module_calls import Call, tensors, watched_calls
from probe_engine.model.teacher_forcing import TokenSequence, token_log_probs


def coarsest(model: nn.Module, sequence: TokenSequence) -> torch.dtype:
    """The least precise floating-point dtype among weights and modules' outputs in one forward.

    A float32 adapter on a bfloat16 base, and float32 weights under an autocast inside of the forward,
    compute no better than bfloat16.
    """
    dtypes = {p.dtype for p in model.parameters() if p.is_floating_point()}

    def finished(call: Call) -> None:
        dtypes.update(t.dtype for t in tensors(call.output) if t.is_floating_point())

    with torch.no_grad(), watched_calls(model, finished):
        token_log_probs(model, [sequence])
    return max(dtypes, key=lambda dtype: torch.finfo(dtype).eps)
