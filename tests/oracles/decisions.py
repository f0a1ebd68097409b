"""Per-decision measurement, method.md (16): one sequence at a time, one token at a time, in plain floats."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

import torch
from torch import nn


def token_scores(of: nn.Module, prompt: list[int], response: list[int]) -> tuple[list[float], list[float]]:
    """log π(y_t) and h_t of each response token."""
    with torch.no_grad():
        logits = of(input_ids=torch.tensor([prompt + response])).logits[0, len(prompt) - 1 : -1]
    ell = logits.double().log_softmax(-1)
    entropies = -(ell.exp() * ell).sum(-1)
    return [float(ell[t, a]) for t, a in enumerate(response)], entropies.tolist()


def change_of_a_prompt(
    before: nn.Module, after: nn.Module, prompt: list[int], responses: Sequence[list[int]], lam: float
) -> float:
    """ΔĤ of one prompt from responses that were sampled before the step; λ constant."""
    old = [token_scores(before, prompt, y) for y in responses]
    new = [token_scores(after, prompt, y) for y in responses]
    longest, G = max(map(len, responses)), len(responses)

    def h(scores: list[tuple[list[float], list[float]]], g: int, t: int) -> float:
        return scores[g][1][t] if t < len(scores[g][1]) else 0.0

    d = []
    for g in range(G):
        total, log_rho = 0.0, 0.0
        for t in range(longest):
            b = sum(h(old, other, t) for other in range(G) if other != g) / (G - 1)
            rho = math.exp(log_rho)
            total += rho * h(new, g, t) - h(old, g, t) - (rho - 1) * b
            if t < len(responses[g]):
                log_rho += new[g][0][t] - old[g][0][t]
        d.append(lam * total)
    return statistics.mean(d)
