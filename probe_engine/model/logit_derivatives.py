"""Sums over response tokens whose derivatives by the logits z are written out.

Autograd goes through [tokens, V] a dozen times for them and keeps copies of it; this goes through it once, in
the reverse pass. What the sums themselves are is known already, from the forward's token statistics.

ℓ        log_softmax(z/T), [V], of one token; π = exp ℓ; h = −Σ_a π_a ℓ_a
log π_y  ∂/∂z = (1_y − π)/T
h        ∂/∂z = −π ⊙ (ℓ + h)/T
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from probe_engine.estimators.token_statistics import LEAST_LOG_PROB, TokenStatistics
from probe_engine.model.teacher_forcing import Layout, rows_at_once, scaled
from probe_engine.vectors import wide

PIECE_BYTES = 2**21
"""Logits that are gone through at a time on a CPU: their few copies should stay in a core's cache."""


_VIEWS = ("ViewBackward0", "UnsafeViewBackward0")
_FORGETFUL = ("MmBackward0", "AddmmBackward0", "MulBackward0", "DivBackward0", "IndexBackward0")
"""Operations whose derivative takes what they were given, and not what they gave."""


@dataclass
class Spending:
    """Whether a reverse pass may write the derivative over the logits: fresh memory of their size costs as
    much time as the arithmetic."""

    now: bool = False


def expendable(logits: Tensor) -> bool:
    """Whether no derivative but those of this module's sums takes the logits."""
    node = logits.grad_fn
    while type(node).__name__ in _VIEWS:
        assert node is not None
        node = node.next_functions[0][0]
    return logits.is_contiguous() and type(node).__name__ in _FORGETFUL


def log_prob_sums(
    logits: Tensor,
    layout: Layout,
    tokens: Sequence[TokenStatistics],
    temperature: float = 1.0,
    spending: Spending | None = None,
) -> Tensor:
    """S [N], nats, float64, with a graph where the logits have one.

    Args:
        logits: [N, K, V]
        layout: their places.
        tokens: each response's statistics, of these very logits.
        temperature: by which they are divided.
        spending: said anew before each reverse pass; None: never.
    """
    values = _placed(layout, [t.log_probs for t in tokens], logits)
    return _summed(logits, layout, values, None, temperature, spending)


def rao_blackwell_sums(
    logits: Tensor,
    layout: Layout,
    tokens: Sequence[TokenStatistics],
    to_come: Sequence[Tensor],
    temperature: float = 1.0,
    spending: Spending | None = None,
) -> Tensor:
    """Σ_t [ h_t + W_t·log π_t ] of each response, [N], float64, with a graph: what (2b) differentiates.

    Args:
        logits: [N, K, V]
        layout: their places.
        tokens: each response's statistics, of these very logits.
        to_come: W_t of each response's tokens, constants.
        temperature: as in `log_prob_sums`.
        spending: likewise.
    """
    log_probs, entropies = ([getattr(t, name) for t in tokens] for name in ("log_probs", "entropies"))
    weights = _placed(layout, to_come, logits)
    values = _placed(layout, entropies, logits) + weights * _placed(layout, log_probs, logits)
    return _summed(logits, layout, values, weights, temperature, spending)


def _summed(
    logits: Tensor,
    layout: Layout,
    values: Tensor,
    weights: Tensor | None,
    temperature: float,
    spending: Spending | None,
) -> Tensor:
    terms: Tensor = _Terms.apply(  # type: ignore[no-untyped-call]  # torch leaves `apply` untyped
        logits, values, layout.targets, weights, temperature, spending or Spending()
    )
    return layout.sums(terms)


class _Terms(torch.autograd.Function):
    """log π_t, or h_t + W_t·log π_t where weights W are given, of each kept position, [N, K]."""

    @staticmethod
    def forward(
        ctx: Any,
        logits: Tensor,
        values: Tensor,
        targets: Tensor,
        weights: Tensor | None,
        temperature: float,
        spending: Spending,
    ) -> Tensor:
        ctx.save_for_backward(logits, targets, weights)
        ctx.temperature, ctx.spending = temperature, spending
        return values.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, cotangents: Tensor) -> tuple[Tensor | None, ...]:
        logits, targets, weights = ctx.saved_tensors
        gradient = logits.detach() if ctx.spending.now else torch.empty_like(logits)
        V = logits.shape[-1]
        rows = rows_at_once(logits, PIECE_BYTES)
        columns = [logits.reshape(-1, V), gradient.view(-1, V), targets.reshape(-1, 1)]
        columns += [(cotangents / ctx.temperature).reshape(-1, 1)]
        columns += [] if weights is None else [weights.reshape(-1, 1)]
        for z, into, y, c, *w in zip(*(column.split(rows) for column in columns), strict=True):
            derivative = _negative(scaled(z, ctx.temperature), y, *w)
            torch.mul(derivative, -c, out=into)
        return gradient, None, None, None, None, None


def _negative(z: Tensor, y: Tensor, weights: Tensor | None = None) -> Tensor:
    """−∂/∂z of log π_y, or of h + W·log π_y, [rows, V]."""
    if weights is None:
        return z.softmax(-1).scatter_add_(-1, y, -torch.ones_like(y, dtype=z.dtype))
    ell = z.log_softmax(-1)
    p = ell.exp()
    h = -torch.linalg.vecdot(p, ell.clamp_(min=LEAST_LOG_PROB))[:, None]
    return ell.add_(h + weights).mul_(p).scatter_add_(-1, y, -weights)


def _placed(layout: Layout, columns: Sequence[Tensor], logits: Tensor) -> Tensor:
    """Numbers of each response's tokens at their positions, [N, K], 0 elsewhere."""
    placed = torch.zeros(layout.mask.shape, dtype=wide(logits.dtype), device=logits.device)
    placed[layout.mask] = torch.cat(list(columns)).to(placed)
    return placed
