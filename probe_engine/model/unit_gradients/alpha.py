"""`alpha` and `alpha-vjp`: dot products by differentiating twice (method.md §5).

L = Σ_i α_i w_i S_i, g = ∇_θ L with its graph, h = ⟨g, v⟩, and ∂h/∂α_i = w_i ∇S_i·v.
`alpha-vjp` takes g as the vector–Jacobian product through S with cotangent W = ∂L/∂S, which survives
wrappers that break the path from L to the parameters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from probe_engine.estimators.token_statistics import TokenStatistics
from probe_engine.model.unit_gradients.interface import Measurement
from probe_engine.model.unit_gradients.loop import Loop
from probe_engine.model.unit_gradients.objective import UnitObjective, chunks
from probe_engine.model.unit_gradients.unit_by_unit import UnitByUnit
from probe_engine.registry import ParameterVector


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

    def measure(self, objective: UnitObjective) -> Measurement:
        """S, X_u and Y_u of one unit, under the backend that the contraction uses."""
        with sdpa_kernel(SDPBackend.MATH):
            return self.loop.measure(objective)

    def score(self, objective: UnitObjective) -> tuple[Tensor, tuple[TokenStatistics, ...]]:
        """S under the same backend, so that S⁺ − S holds no difference between backends."""
        with sdpa_kernel(SDPBackend.MATH):
            return self.loop.score(objective)

    def contract(
        self,
        objective: UnitObjective,
        S: Tensor,
        x_directions: Sequence[ParameterVector],
        y_directions: Sequence[ParameterVector],
    ) -> tuple[list[float], list[float]]:
        """One forward, one reverse pass for L_X and L_Y each, one more for each direction."""
        wx, wy = objective.weights(S)
        x_dots, y_dots = [0.0] * len(x_directions), [0.0] * len(y_directions)
        with sdpa_kernel(SDPBackend.MATH):
            for part in chunks(objective, self.loop.micro_batch):
                s = self.loop.forward(objective, part)
                for weights, directions, dots in (
                    (wx, x_directions, x_dots),
                    (wy, y_directions, y_dots),
                ):
                    if directions:
                        alpha = torch.ones_like(s, requires_grad=True)
                        gradient = self._gradient(s, alpha * weights[part].to(s.device))
                        for index, direction in enumerate(directions):
                            dots[index] += _derivative(gradient, direction, alpha)
        return x_dots, y_dots

    def _gradient(self, s: Tensor, weighted_alpha: Tensor) -> tuple[Tensor | None, ...]:
        parameters = self.loop.registry.parameters
        if self.through_s:
            return torch.autograd.grad(
                s, parameters, grad_outputs=weighted_alpha, create_graph=True, allow_unused=True
            )
        return torch.autograd.grad(
            (weighted_alpha * s).sum(), parameters, create_graph=True, allow_unused=True
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
