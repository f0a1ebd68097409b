"""The realized change, token by token: exact entropies, and only the prefix re-weighted (method.md (16)).

N, T          responses, places up to the longest response
h, h⁺         entropy of the next-token distribution before and after the step, nats      [N, T]
ρ_{<t}        Π_{s<t} π⁺/π of the response's own tokens before place t                     [N, T]
b             leave-one-out mean of h_t over the prompt's other responses                 [N, T]
λ             length weight, the same for all responses                                   [N]

After a response's end h and h⁺ are 0 and ρ stays what it was; the sum runs to the longest response.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from probe_engine.estimators.change import Change
from probe_engine.estimators.rescored import Samples, leave_one_out_mean


@dataclass(frozen=True, eq=False)
class Decisions:
    """What re-scoring says of every token, padded with 0 after a response's end."""

    log_ratio: Tensor
    """log π⁺/π of the sampled token, float64 [N, T]"""
    h: Tensor
    """float64 [N, T], nats"""
    h_plus: Tensor
    """float64 [N, T], nats"""

    def __post_init__(self) -> None:
        shapes = {tuple(t.shape) for t in (self.log_ratio, self.h, self.h_plus)}
        if len(shapes) != 1 or self.h.dim() != 2:
            raise ValueError(f"expected three [N, T], got shapes {sorted(shapes)}")

    @classmethod
    def of(
        cls,
        log_probs: Sequence[Tensor],
        log_probs_plus: Sequence[Tensor],
        h: Sequence[Tensor],
        h_plus: Sequence[Tensor],
    ) -> Decisions:
        """From one tensor a response, each [L]."""

        def padded(rows: Sequence[Tensor]) -> Tensor:
            return pad_sequence([row.double() for row in rows], batch_first=True)

        return cls(padded(log_probs_plus) - padded(log_probs), padded(h), padded(h_plus))


def per_decision(samples: Samples, decisions: Decisions) -> Change:
    """ΔĤ by exact token entropies, unbiased for constant λ, length truncation included (16).

    Independent of the noise of the score estimator (2), and far quieter than `matched`.

    Args:
        samples: shares, weights λ and groups; λ must be constant.
        decisions: of the same responses, in the same order.

    Raises:
        ValueError: λ differs between responses, or the two hold different numbers of responses.
    """
    if len(decisions.h) != samples.N:
        raise ValueError(f"expected {samples.N} responses, got {len(decisions.h)}")
    lam = samples.lam.double()
    if not torch.allclose(lam, lam[0]):
        raise ValueError("the per-decision form needs one λ for all responses: not per_token")
    d = lam * changes(decisions, leave_one_out_mean(decisions.h, samples.group))
    return Change.of(samples, d, before=lam * decisions.h.sum(1))


def changes(decisions: Decisions, b: Tensor) -> Tensor:
    """Σ_t [ ρ_{<t} h⁺_t − h_t − (ρ_{<t} − 1)·b_t ] of each response, [N].

    Args:
        decisions: of N responses.
        b: [N, T], the baseline; it must not depend on the response itself.
    """
    log_rho = decisions.log_ratio.cumsum(1) - decisions.log_ratio
    # (h⁺ − h) + (ρ − 1)(h⁺ − b): nothing cancels as the step shrinks.
    return (decisions.h_plus - decisions.h + torch.expm1(log_rho) * (decisions.h_plus - b)).sum(1)
