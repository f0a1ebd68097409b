"""Responses that were scored before the step and again after it.

N             responses, flat
S, S⁺         log-probability of a response before and after the step, nats     [N]
w             e^{S⁺ − S}                                                        [N]
λ             length weight of the probed entropy                               [N]
p             share of a response in the batch's mean, Σp = 1                   [N]
u, B          unit of a response, number of units; a unit's shares sum to 1/B
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from probe_engine.estimators.weights import ess, smoothed


@dataclass(frozen=True, eq=False)
class Samples:
    """Re-scored responses, valid once built; NaN and infinite log-probabilities are let through.

    Raises:
        ValueError: shapes that differ, shares that are not a mean over units, a unit without responses,
            a prompt in two units or with one response.
    """

    S: Tensor
    """[N], nats."""
    S_plus: Tensor
    """[N], nats."""
    lam: Tensor
    """[N], λ."""
    weight: Tensor
    """[N], p: share in the mean over units of means over prompts of means over responses."""
    unit: Tensor
    """[N], long, 0 … B−1."""
    group: Tensor
    """[N], long, the prompt."""

    def __post_init__(self) -> None:
        fields = (self.S, self.S_plus, self.lam, self.weight, self.unit, self.group)
        shapes = {tuple(f.shape) for f in fields}
        if len(shapes) != 1 or self.S.dim() != 1 or not len(self.S):
            raise ValueError(f"expected one number a response in each field, got shapes {sorted(shapes)}")
        if sorted(set(self.unit.tolist())) != list(range(self.B)):
            raise ValueError("units must be numbered 0 … B−1, each with a response or more")
        shares = self.unit_sums(torch.ones_like(self.p))
        if not bool((self.p > 0).all()) or float((shares * self.B - 1).abs().max()) > 1e-5:
            raise ValueError(
                f"each unit's weights must be positive and sum to 1/{self.B}, got {shares.tolist()}"
            )
        pairs = set(zip(self.unit.tolist(), self.group.tolist(), strict=True))
        if len(pairs) != len(set(self.group.tolist())):
            raise ValueError("a prompt belongs to one unit, got one in two")
        if int(self.group.bincount()[self.group].min()) < 2:
            raise ValueError("a prompt needs 2 responses or more: one has no leave-one-out mean")

    @property
    def N(self) -> int:
        """Number of responses."""
        return len(self.S)

    @cached_property
    def B(self) -> int:
        """Number of units."""
        return int(self.unit.max()) + 1

    @cached_property
    def p(self) -> Tensor:
        """`weight` in float64, [N]."""
        return self.weight.double()

    @cached_property
    def log_w(self) -> Tensor:
        """S⁺ − S, float64 [N]."""
        return self.S_plus.double() - self.S.double()

    @cached_property
    def smoothed(self) -> tuple[Tensor, float] | None:
        """Pareto-smoothed log-weights [N] and k̂ of the raw ones; None where no tail can be fitted."""
        return smoothed(self.log_w)

    @property
    def khat(self) -> float | None:
        """Pareto k̂ of the raw weights; None where no tail can be fitted."""
        return None if self.smoothed is None else self.smoothed[1]

    def unit_sums(self, values: Tensor) -> Tensor:
        """Σ_{i∈u} p_i·values_i, float64 [B]."""
        return torch.zeros(self.B, dtype=torch.float64, device=values.device).index_add(
            0, self.unit, self.p * values
        )


def unit_ess(samples: Samples) -> Tensor:
    """`ess` of each unit's responses by themselves, float64 [B]."""
    members = [samples.unit == u for u in range(samples.B)]
    return torch.tensor([ess(samples.log_w[m], samples.p[m]) for m in members], dtype=torch.float64)


def leave_one_out_mean(values: Tensor, group: Tensor) -> Tensor:
    """Mean of `values` over the other members of each one's group.

    Args:
        values: [N] or [N, T].
        group: [N], long; two members or more each.
    """
    count = group.bincount().view(-1, *(1,) * (values.dim() - 1))
    sums = values.new_zeros(len(count), *values.shape[1:]).index_add(0, group, values)
    return (sums[group] - values) / (count[group] - 1)
