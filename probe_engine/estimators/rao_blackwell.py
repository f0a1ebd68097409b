"""The Rao-Blackwell entropy gradient: exact token entropies for what was sampled (method.md (2b)).

X_n = ∇ (λ/G) Σ_g Σ_t [ h_t + sg( Σ_{s>t} (h_s − b_s) )·log π_t ]

N, T          responses, places up to the longest response
h             entropy of the next-token distribution at each place, nats; 0 after the end        [N, T]
b             leave-one-out mean of h over the prompt's other responses                          [N, T]
"""

from __future__ import annotations

from torch import Tensor

from probe_engine.estimators.rescored import leave_one_out_mean


def entropies_to_come(h: Tensor, group: Tensor) -> Tensor:
    """Σ_{s>t} (h_s − b_s), the weight of log π_t in (2b), [N, T], detached.

    The sum runs to the longest response: where it ended at a response's own end, that end, which the
    response chose, would enter the baseline and bias it.

    Args:
        h: [N, T], 0 after a response's end.
        group: [N], long, the prompt of each; two responses or more each.
    """
    surplus = h.detach().double()
    surplus = surplus - leave_one_out_mean(surplus, group)
    return surplus.flip(1).cumsum(1).flip(1) - surplus
