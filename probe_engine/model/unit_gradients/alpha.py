"""`alpha` and `alpha-vjp`: dot products by differentiating twice (method.md §5).

L = Σ_i α_i w_i S_i, g = ∇_θ L with its graph, h = ⟨g, v⟩, and ∂h/∂α_i = w_i ∇S_i·v.
`alpha-vjp` takes g as the vector–Jacobian product through S with cotangent W = ∂L/∂S, which survives
wrappers that break the path from L to the parameters. With the sums of (2b) in place of S_i it is X of (2b).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from probe_engine.estimators.token_statistics import TokenStatistics
from probe_engine.model.unit_gradients.interface import Dots, Measurement, Rescored, Scored
from probe_engine.model.unit_gradients.loop import Loop
from probe_engine.model.unit_gradients.objective import UnitObjective, chunks
from probe_engine.model.unit_gradients.unit_by_unit import UnitByUnit
from probe_engine.vectors import ParameterVector


@dataclass(frozen=True)
class Alpha(UnitByUnit):
    """Norms, diagonal and sums by `loop`; contractions by double backward."""

    loop: Loop
    through_s: bool
    keeps_vectors: bool = False

    @property
    def name(self) -> str:
        """alpha or alpha-vjp."""
        return "alpha-vjp" if self.through_s else "alpha"

    @property
    def attention(self) -> str:
        """Flash and memory-efficient attention have no double backward; the math backend has."""
        inner = self.loop.attention
        return f"{inner} (math backend)" if inner == "sdpa" else inner

    def measure(self, objective: UnitObjective, *, rao_blackwell: bool = False) -> Measurement:
        """S, X_u and Y_u of one unit, under the backend that the contraction uses."""
        with sdpa_kernel(SDPBackend.MATH):
            return self.loop.measure(objective, rao_blackwell=rao_blackwell)

    def score(self, objective: UnitObjective) -> Scored:
        """S and token statistics under the same backend."""
        with sdpa_kernel(SDPBackend.MATH):
            return self.loop.score(objective)

    def rescore(self, objective: UnitObjective) -> Rescored:
        """S under the same backend, so that S⁺ − S holds no difference between backends."""
        with sdpa_kernel(SDPBackend.MATH):
            return self.loop.rescore(objective)

    def contract(
        self,
        objective: UnitObjective,
        S: Tensor,
        x_directions: Sequence[ParameterVector],
        y_directions: Sequence[ParameterVector],
        tokens: Sequence[TokenStatistics] = (),
    ) -> Dots:
        """One forward; for X, Y and X of (2b) a reverse pass each, and one more for each direction."""
        wx, wy = objective.weights(S)
        found = Dots(*([0.0] * len(v) for v in (x_directions, y_directions, x_directions if tokens else ())))
        with sdpa_kernel(SDPBackend.MATH):
            for part in chunks(objective, self.loop.micro_batch):
                run = self.loop.forward(objective, part)
                terms = [(run.S, wx, x_directions, found.x), (run.S, wy, y_directions, found.y)]
                if tokens:
                    sums = self.loop.rao_blackwell(objective, part, run, tokens)
                    terms.append((sums, objective.rao_blackwell_weights, x_directions, found.x_rb))
                for of, weights, directions, dots in terms:
                    if directions:
                        alpha = torch.ones_like(of, requires_grad=True)
                        gradient = self._gradient(of, alpha * weights[part].to(of.device))
                        for index, direction in enumerate(directions):
                            dots[index] += _derivative(gradient, direction, alpha)
        return found

    def _gradient(self, of: Tensor, weighted_alpha: Tensor) -> tuple[Tensor | None, ...]:
        parameters = self.loop.registry.parameters
        if self.through_s:
            return torch.autograd.grad(
                of, parameters, grad_outputs=weighted_alpha, create_graph=True, allow_unused=True
            )
        return torch.autograd.grad(
            (weighted_alpha * of).sum(), parameters, create_graph=True, allow_unused=True
        )


def _derivative(gradient: tuple[Tensor | None, ...], direction: ParameterVector, alpha: Tensor) -> float:
    """Σ_i ∂⟨g, v⟩/∂α_i, accumulated in float64."""
    products = [
        (g.double() * v.double()).sum()
        for g, v in zip(gradient, direction.tensors, strict=True)
        if g is not None and v is not None
    ]
    if not products:
        return 0.0
    (by_alpha,) = torch.autograd.grad(torch.stack(products).sum(), alpha, retain_graph=True)
    return float(by_alpha.sum())
