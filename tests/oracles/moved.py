"""The enumerable model before and after a step: batches sampled before it, scored again, and sampled anew."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from oracles.enumeration import Enumerable
from probe_engine.estimators.entropy import length_weights
from probe_engine.estimators.per_decision import Decisions
from probe_engine.estimators.rescored import Samples


@dataclass(frozen=True)
class Drawn:
    """B prompts with G responses each, and as many fresh ones."""

    samples: Samples
    decisions: Decisions
    before: Tensor
    """Of each response λ·Σh, or −λS where λ differs between responses, [B·G]"""
    after: Tensor
    """The same of the fresh ones, after the step"""


@dataclass(frozen=True)
class Moved:
    """Δθ is held fixed whatever the batch."""

    model: Enumerable
    step: Tensor
    """Δθ, [P]"""
    weighting: str = "dr_grpo"

    @classmethod
    def at_random(cls, size: float, seed: int = 0, weighting: str = "dr_grpo") -> Moved:
        """In no particular direction."""
        model, generator = Enumerable(seed=seed), torch.Generator().manual_seed(seed)
        step = size * torch.randn(len(model.theta), generator=generator, dtype=torch.float64)
        return cls(model, step, weighting)

    @cached_property
    def lam(self) -> Tensor:
        """λ of every listed sequence, [N]"""
        return length_weights(self.model.lengths, self.weighting, self.model.max_length)

    @cached_property
    def truth(self) -> float:
        """H(θ⁺) − H(θ)"""
        return self.model.change(self.lam, self.step)

    @cached_property
    def places(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """log π, log π⁺, h, h⁺ of every listed sequence's places, each [C, N, T]; 0 after the end."""
        before, h = self.model.places(self.model.theta)
        after, h_plus = self.model.places(self.model.theta + self.step)
        return before, after, h, h_plus

    def drawn(self, batches: int, B: int, G: int, seed: int) -> Iterator[Drawn]:
        """Batches of iid prompts with iid responses."""
        draw = self.model.draw(batches, B, G, seed)
        probabilities = self.places[1].sum(-1).exp()
        generator = torch.Generator().manual_seed(seed + 1)
        unit = torch.arange(B).repeat_interleave(G)
        weight = torch.full((B * G,), 1 / (B * G), dtype=torch.float64)
        for contexts, sequences in zip(draw.contexts, draw.sequences, strict=True):
            of, old = contexts.repeat_interleave(G), sequences.flatten()
            fresh = torch.multinomial(probabilities[of], 1, generator=generator).squeeze(1)
            before, after, h, h_plus = (t[of, old] for t in self.places)
            yield Drawn(
                Samples(before.sum(1), after.sum(1), self.lam[old], weight, unit, unit),
                Decisions(after - before, h, h_plus),
                self._entropies(before.sum(1), h.sum(1), old),
                self._entropies(self.places[1][of, fresh].sum(1), self.places[3][of, fresh].sum(1), fresh),
            )

    def _entropies(self, S: Tensor, h: Tensor, sequences: Tensor) -> Tensor:
        return self.lam[sequences] * (-S if self.weighting == "per_token" else h)
