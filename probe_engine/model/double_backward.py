"""Can the model's gradient be differentiated once more, as `alpha` does?"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from probe_engine.errors import memory_ran_out
from probe_engine.model.teacher_forcing import TokenSequence, sequence_log_probs, token_log_probs
from probe_engine.registry import ParameterRegistry

TOLERANCE = 0.05
"""Relative; in bfloat16 the two agree to a hundredth."""


def twice_differentiable(model: nn.Module, registry: ParameterRegistry, sequence: TokenSequence) -> str:
    """Differentiates S of at most 4 tokens of a sequence twice, under the math attention backend.

    With g(α) = ∇_θ αS the derivative of ⟨g(α), g(1)⟩ at α = 1 is ‖g(1)‖², for g is linear in α. A reverse
    pass that was written without a graph of its own does not raise: it loses its part of that number.

    Returns:
        what the second reverse pass raised or missed, empty where it came through.
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
            squares = torch.stack(
                [(g.double() * g.detach().double()).sum() for g in gradient if g is not None]
            )
            (second,) = torch.autograd.grad(squares.sum(), alpha)
    except Exception as error:  # an attention kernel of anybody's making raises anything
        if memory_ran_out(error):
            raise
        return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0][:200]}"
    expected, found = float(squares.detach().sum()), float(second.sum())
    if abs(found - expected) > TOLERANCE * abs(expected):
        return f"its second derivative is {found:.4g} where the first one's square is {expected:.4g}"
    return ""
