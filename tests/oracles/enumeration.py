"""An autoregressive model whose sequences can all be listed (method.md §9): every expectation is exact.

C contexts (the population of prompts), V tokens (0 is the eos), N sequences, P = V² parameters.
The next-token logits are θ[previous token] + offset[context, position, previous token]: prompts differ, and
share θ. Few parameters and a reward that all prompts share keep the noise of X·P Y below its signal: where
that is not so the U-statistic is near-degenerate and its intervals needn't hold (method.md (10)).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import product

import torch
from torch import Tensor

EOS = 0


@dataclass(frozen=True)
class Draw:
    """R batches of B prompts, drawn with replacement, and G responses of each."""

    contexts: Tensor
    """[R, B]"""
    sequences: Tensor
    """[R, B, G], rows of `Enumerable.tokens`"""


@dataclass(frozen=True)
class Enumerable:
    """All is float64."""

    vocabulary: int = 4
    max_length: int = 3
    contexts: int = 8
    seed: int = 0

    @cached_property
    def listed(self) -> list[tuple[int, ...]]:
        """Every sequence: ended by the eos, or cut at the maximal length."""
        V, T = self.vocabulary, self.max_length
        ended = [(*body, EOS) for length in range(T) for body in product(range(1, V), repeat=length)]
        return ended + list(product(range(1, V), repeat=T))

    @cached_property
    def lengths(self) -> Tensor:
        """[N]"""
        return torch.tensor([len(s) for s in self.listed])

    @cached_property
    def theta(self) -> Tensor:
        """[P]"""
        return self._random(0, self.vocabulary**2, 0.7)

    @cached_property
    def offsets(self) -> Tensor:
        """[C, T, V, V], no parameters."""
        V = self.vocabulary
        return self._random(1, self.contexts * self.max_length * V * V, 1.0).view(
            self.contexts, self.max_length, V, V
        )

    @cached_property
    def rewards(self) -> Tensor:
        """[C, N], verifiable: how often the response says token 1."""
        counts = [float(sequence.count(1)) for sequence in self.listed]
        return torch.tensor(counts, dtype=torch.float64).expand(self.contexts, -1)

    @cached_property
    def preconditioner(self) -> Tensor:
        """[P], positive."""
        return self._random(2, len(self.theta), 0.7).exp()

    def log_probs(self, theta: Tensor) -> Tensor:
        """S of every sequence, [C, N]."""
        V, T = self.vocabulary, self.max_length
        table = torch.log_softmax(theta.view(V, V) + self.offsets, dim=-1)
        columns = []
        for sequence in self.listed:
            steps = zip(range(T), (EOS, *sequence), sequence, strict=False)
            columns.append(sum(table[:, t, previous, token] for t, previous, token in steps))
        return torch.stack(columns, dim=1)

    def places(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """log π and h of every listed sequence's places, each [C, N, T], 0 after the end."""
        V, T = self.vocabulary, self.max_length
        table = torch.log_softmax(theta.view(V, V) + self.offsets, dim=-1)
        entropies = -(table.exp() * table).sum(-1)
        token = torch.tensor([[*s, *(T - len(s)) * (EOS,)] for s in self.listed])
        previous = torch.cat([torch.full((len(token), 1), EOS), token[:, :-1]], 1)
        places = torch.arange(T)
        there = places < self.lengths[:, None]
        return table[:, places, previous, token] * there, entropies[:, places, previous] * there

    @cached_property
    def place_gradients(self) -> tuple[Tensor, Tensor]:
        """∇log π and ∇h of every place, each [C, N, T, P]."""
        of_log_probs, of_h = torch.autograd.functional.jacobian(self.places, self.theta, vectorize=True)
        return of_log_probs, of_h

    @cached_property
    def S(self) -> Tensor:
        """[C, N]"""
        return self.log_probs(self.theta)

    @cached_property
    def probabilities(self) -> Tensor:
        """[C, N], each row sums to 1."""
        return self.S.exp()

    @cached_property
    def scores(self) -> Tensor:
        """∇S, [C, N, P]."""
        return torch.autograd.functional.jacobian(self.log_probs, self.theta, vectorize=True)

    def entropy(self, theta: Tensor, lam: Tensor) -> Tensor:
        """H of each context, [C]; lam [N]."""
        S = self.log_probs(theta)
        return -(S.exp() * lam * S).sum(dim=1)

    def entropy_gradient(self, lam: Tensor) -> Tensor:
        """∇H of each context, by autograd through the full sum, [C, P]."""
        return torch.autograd.functional.jacobian(lambda theta: self.entropy(theta, lam), self.theta)

    def expected_y(self, kappa: Tensor) -> Tensor:
        """E[Y] with advantages r − leave-one-out mean: E[(r − E r)·κ·∇S], [C, P]; kappa [N]."""
        centred = self.rewards - (self.probabilities * self.rewards).sum(dim=1, keepdim=True)
        return torch.einsum("cn,cnp->cp", self.probabilities * centred * kappa, self.scores)

    def delta_h1(self, lam: Tensor, kappa: Tensor, eta: float) -> float:
        """Population δH₁ = η·∇H·P E[Y], prompts uniform over the contexts."""
        x, y = self.entropy_gradient(lam).mean(dim=0), self.expected_y(kappa).mean(dim=0)
        return eta * float(x @ (self.preconditioner * y))

    def change(self, lam: Tensor, step: Tensor) -> float:
        """H(θ + step) − H(θ), mean over the contexts."""
        return float((self.entropy(self.theta + step, lam) - self.entropy(self.theta, lam)).mean())

    def draw(self, batches: int, B: int, G: int, seed: int) -> Draw:
        """Batches of iid prompts with iid responses."""
        generator = torch.Generator().manual_seed(seed)
        contexts = torch.randint(self.contexts, (batches, B), generator=generator)
        cumulative = self.probabilities.cumsum(dim=1)
        uniform = torch.rand(batches, B, G, generator=generator, dtype=torch.float64)
        sequences = torch.searchsorted(cumulative[contexts], uniform).clamp(max=len(self.listed) - 1)
        return Draw(contexts, sequences)

    def of(self, per_sequence: Tensor, draw: Draw) -> Tensor:
        """Values [C, N, …] of the drawn responses, [R, B, G, …]."""
        return per_sequence[draw.contexts[..., None], draw.sequences]

    def x(self, draw: Draw, lam: Tensor) -> Tensor:
        """X_n of every drawn prompt, method.md (2), [R, B, P]."""
        a = (self.of(self.S, draw) + 1) * lam[draw.sequences]
        return torch.einsum("rbg,rbgp->rbp", -_less_others(a), self.of(self.scores, draw)) / a.shape[-1]

    def x_rao_blackwell(self, draw: Draw, lam: float) -> Tensor:
        """X_n of every drawn prompt, method.md (2b), [R, B, P]."""
        of_log_probs, of_h = (self.of(gradient, draw) for gradient in self.place_gradients)
        h = self.of(self.places(self.theta)[1], draw)
        surplus = _less_others(h.movedim(2, -1)).movedim(-1, 2)
        to_come = surplus.flip(-1).cumsum(-1).flip(-1) - surplus
        return lam * (of_h + to_come[..., None] * of_log_probs).sum(3).mean(2)

    def y(self, draw: Draw, kappa: Tensor) -> Tensor:
        """Y_n of every drawn prompt, method.md (3), [R, B, P]."""
        advantages = _less_others(self.of(self.rewards, draw))
        weights = advantages * kappa[draw.sequences] / advantages.shape[-1]
        return torch.einsum("rbg,rbgp->rbp", weights, self.of(self.scores, draw))

    def _random(self, stream: int, size: int, scale: float) -> Tensor:
        generator = torch.Generator().manual_seed(1000 * self.seed + stream)
        return scale * torch.randn(size, generator=generator, dtype=torch.float64)


def _less_others(values: Tensor) -> Tensor:
    """Each value minus the mean of the others, along the last dimension."""
    G = values.shape[-1]
    return values - (values.sum(dim=-1, keepdim=True) - values) / (G - 1)
