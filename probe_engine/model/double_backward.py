"""Can the model's gradient be differentiated once more, as `alpha` does?"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from probe_engine.errors import memory_ran_out
from probe_engine.model.teacher_forcing import TokenSequence, sequence_log_probs, token_log_probs
from probe_engine.registry import ParameterRegistry


def twice_differentiable(model: nn.Module, registry: ParameterRegistry, sequence: TokenSequence) -> str:
    """Differentiates S of at most 4 tokens of a sequence twice, under the math attention backend.

    Returns:
        what the second reverse pass raised, empty where it came through.
    """
    short = TokenSequence(sequence.prompt[-2:], sequence.response[:2])
    try:
        with sdpa_kernel(SDPBackend.MATH):
            log_probs, _ = token_log_probs(model, [short])
            S = sequence_log_probs(log_probs)
            alpha = torch.ones_like(S, requires_grad=True)
            gradient = torch.autograd.grad(
                (alpha * S).sum(), registry.parameters, create_graph=True, allow_unused=True
            )
            inner = [(g * g.detach()).sum() for g in gradient if g is not None]
            torch.autograd.grad(torch.stack(inner).sum(), alpha)
    except Exception as error:  # an attention kernel of anybody's making raises anything
        if memory_ran_out(error):
            raise
        return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0][:200]}"
    return ""
