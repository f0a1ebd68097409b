"""What one pass over the logits keeps of each sampled token: enough for entropies, the on-policy test
and the baselines, a few numbers in place of a distribution over the vocabulary.

ℓ_a   log π(a | x, y_<t) of every token a of the vocabulary
β     inverse temperature; π_β ∝ π^β, so β = 1 is the policy itself
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Self

import torch
from torch import Tensor

from probe_engine.vectors import wide

INVERSE_TEMPERATURES = (0.25, 0.5, 1.0, 1.5, 2.0, 3.0)
"""β at which moments are kept: temperatures from 4 to 1/3, and powers of π that cost a multiplication."""
POLICY = INVERSE_TEMPERATURES.index(1.0)
SQUARE = INVERSE_TEMPERATURES.index(2.0)
LEAST_LOG_PROB = -200.0
"""Stands for −∞ (tokens that a model masks out): its probability is 0, and 0 · −∞ would be NaN."""


@dataclass(frozen=True)
class _Columns:
    """Tensors whose first axis is tokens."""

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """One after the other; `parts` is not empty."""
        return cls(*(torch.cat([getattr(part, name) for part in parts]) for name in cls._names()))

    def split(self, sizes: Sequence[int]) -> tuple[Self, ...]:
        """Cut into runs of these lengths, which sum to T."""
        columns = [torch.split(getattr(self, name), list(sizes)) for name in self._names()]
        return tuple(type(self)(*run) for run in zip(*columns, strict=True))

    def cpu(self) -> Self:
        """The same on the CPU."""
        return type(self)(*(getattr(self, name).cpu() for name in self._names()))

    @classmethod
    def _names(cls) -> list[str]:
        return [f.name for f in fields(cls)]


@dataclass(frozen=True)
class TokenScores(_Columns):
    """What is asked of T sampled tokens after a step; float32 or wider, without a graph."""

    log_probs: Tensor
    """log π(y_t), [T], nats"""
    entropies: Tensor
    """h_t, exact entropy of the next-token distribution, [T], nats"""


@dataclass(frozen=True)
class TokenStatistics(_Columns):
    """T sampled tokens, in order; float32 or wider, without a graph."""

    log_probs: Tensor
    """log π(y_t), [T], nats"""
    ahead: Tensor
    """Mass of the tokens likelier than y_t, [T]: sampling at top-p = q leaves out y_t where it is ≥ q."""
    means: Tensor
    """E_{a~π_β}[ℓ_a], [T, K], nats"""
    variances: Tensor
    """Var_{a~π_β}[ℓ_a], [T, K], nats²"""
    mean_discriminant: Tensor
    """E_{a~π}[π_a (h + ℓ_a)], [T], nats: what the discriminant of method.md §8 is centred by"""

    def __post_init__(self) -> None:
        T, K = len(self.log_probs), len(INVERSE_TEMPERATURES)
        shapes = [tuple(getattr(self, f.name).shape) for f in fields(self)]
        if shapes != [(T,), (T,), (T, K), (T, K), (T,)]:
            raise ValueError(f"expected [T], [T], [T, {K}], [T, {K}] and [T], got {shapes}")

    def __len__(self) -> int:
        return len(self.log_probs)

    @property
    def entropies(self) -> Tensor:
        """h_t, exact entropy of the next-token distribution, [T], nats."""
        return -self.means[:, POLICY]

    @property
    def surprise_variances(self) -> Tensor:
        """Var_t = Σ_a π_a (ℓ_a + h_t)² of method.md (20), [T], nats²."""
        return self.variances[:, POLICY]

    @property
    def scores(self) -> TokenScores:
        """What scoring the tokens anew gives again."""
        return TokenScores(self.log_probs, self.entropies)


@torch.no_grad()
def token_statistics(logits: Tensor, sampled: Tensor, room: Tensor | None = None) -> TokenStatistics:
    """The statistics of T sampled tokens.

    Args:
        logits: [T, V], of any floating-point dtype, already divided by the policy's temperature.
        sampled: [T], the tokens y_t.
        room: what `room_for` gives, where many tokens follow one another.

    Returns:
        On the logits' device; about a dozen [T, V] float32 tensors are alive meanwhile.
    """
    logits, ell, ell_y = _log_probs(logits, sampled)
    # Each line is a pass over [T, V], and these passes cost a tenth of the model's forward: factors go
    # into one buffer, and a matrix product takes all sums but the policy's own, which differences of
    # entropies hang on.
    room = room_for(ell) if room is None else room[: len(ell)]
    weights, powers = room.split([len(INVERSE_TEMPERATURES), 3], 1)
    fourth, root, p, three_halves, square, cube = weights.unbind(1)  # π^β, in INVERSE_TEMPERATURES' order
    one, centred, squared = powers.unbind(1)
    torch.softmax(logits, -1, out=p)
    ahead = torch.linalg.vecdot(torch.gt(ell, ell_y, out=torch.empty_like(ell)), p)
    h = _entropies(p, ell)
    torch.add(ell, h, out=centred)  # moments about −h: Var_t is then a sum of squares, nothing cancels
    torch.mul(centred, centred, out=squared)
    one.fill_(1.0)
    torch.sqrt(torch.sqrt(p, out=root), out=fourth)
    torch.mul(p, root, out=three_halves)
    torch.mul(p, torch.mul(p, p, out=square), out=cube)
    total, first, second = torch.bmm(powers, weights.transpose(1, 2)).unbind(1)
    first, second = first / total, second / total
    first[:, POLICY] = _rest(p, centred)
    return TokenStatistics(
        log_probs=ell_y.squeeze(-1),
        ahead=ahead.clamp(max=1),  # rounding may carry a sum over 1
        means=first - h,
        variances=(second - first.square()).clamp(min=0),
        mean_discriminant=total[:, SQUARE] * first[:, SQUARE],
    )


@torch.no_grad()
def token_scores(logits: Tensor, sampled: Tensor) -> TokenScores:
    """The same log-probabilities and entropies as `token_statistics` gives, at a third of its price.

    Args:
        logits: [T, V], of any floating-point dtype, already divided by the policy's temperature.
        sampled: [T], the tokens y_t.
    """
    logits, ell, ell_y = _log_probs(logits, sampled)
    p = logits.softmax(-1)
    h = _entropies(p, ell)
    return TokenScores(ell_y.squeeze(-1), -(_rest(p, ell.add_(h)) - h.squeeze(-1)))


def _entropies(p: Tensor, ell: Tensor) -> Tensor:
    """−Σ_a π_a ℓ_a, [T, 1], as far as rounding allows; `_rest` is what it leaves."""
    return -(p * ell).sum(-1, keepdim=True)


def _rest(p: Tensor, centred: Tensor) -> Tensor:
    """Σ_a π_a (ℓ_a + h), [T]. Summed alike wherever the factors lie: no step is no change, to the bit."""
    return (p * centred).sum(-1)


def _log_probs(logits: Tensor, sampled: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Logits in float32 or wider, ℓ without −∞ [T, V], and ℓ of the sampled tokens [T, 1]."""
    logits = logits.to(wide(logits.dtype))
    ell = logits.log_softmax(-1)
    ell_y = ell.gather(-1, sampled[:, None])
    return logits, ell.clamp_(min=LEAST_LOG_PROB), ell_y


def room_for(logits: Tensor) -> Tensor:
    """Where `token_statistics` of up to T tokens puts its factors: memory that is used again costs less."""
    T, V = logits.shape
    return torch.empty((T, len(INVERSE_TEMPERATURES) + 3, V), dtype=wide(logits.dtype), device=logits.device)
