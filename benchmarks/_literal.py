"""The probe as its description says it, step by step, with nothing shared between the steps.

1. X̄ and Ȳ: a forward and a backward pass over the whole batch for each of them.
2. X_n and Y_n of each prompt, by a forward and a backward pass each: the diagonal X_n·P Y_n, and with the
   bars the row means r_n (method.md (7)).
3. s_n of E by the α-trick: L = Σ α_n L_X(n), g = ∇L with its graph, h = ⟨g, μ_Y⟩, s = ∂h/∂α.

S⁺ is scored in the training step's micro-batches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from _case import Case
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from probe_engine.estimators.ustatistics import row_means
from probe_engine.model.unit_gradients import UnitObjective
from probe_engine.model.unit_gradients.loop import VectorSum
from probe_engine.vectors import ParameterVector, wide

X, Y = 0, 1
"""Which of a unit's two weights of S: L_X's or L_Y's."""


@dataclass(frozen=True)
class Dots:
    """By unit id, without η."""

    s: dict[str, float]
    r: dict[str, float]


@dataclass(frozen=True)
class Literal:
    """Of one case."""

    case: Case

    def dots(self) -> Dots:
        """s_n of E and r_n of all."""
        units, p = self.case.units, self.case.p
        held_out, update = ([u for u in units if u.unit.role == role] for role in ("E", "U"))
        sum_x, sum_y, sum_y_update = self._sum(units, X), self._sum(held_out, Y), self._sum(update, Y)
        mu_y, sum_py = p(sum_y_update).scaled(1 / len(update)), p(sum_y.plus(sum_y_update))
        diagonal, x_dots, y_dots = [], [], []
        for unit in units:
            x, py = self._sum([unit], X), p(self._sum([unit], Y))
            diagonal.append(x.dot(py))
            x_dots.append(x.dot(sum_py))
            y_dots.append(py.dot(sum_x))
        r = row_means(*(torch.tensor(dots, dtype=torch.float64) for dots in (diagonal, x_dots, y_dots)))
        s = self._along(held_out, mu_y)
        return Dots(s=_by_id(held_out, s), r=_by_id(units, r.tolist()))

    def score(self, units: Sequence[UnitObjective]) -> None:
        """S of these units without a graph."""
        with torch.no_grad():
            for together in self.case.chunks(units):
                self.case.log_probs(together)

    def _sum(self, units: Sequence[UnitObjective], which: int) -> ParameterVector:
        """Σ_n X_n, or Σ_n Y_n."""
        registry = self.case.policy.registry
        total = VectorSum(registry)
        for together in self.case.chunks(units):
            objective = sum(self._objectives(together, which))
            gradients = torch.autograd.grad(objective, registry.parameters)
            total.add(ParameterVector(registry.ids, [g.to(wide(g.dtype)) for g in gradients]))
        return total.total

    def _along(self, units: Sequence[UnitObjective], direction: ParameterVector) -> list[float]:
        """X_n·v by differentiating twice; attention has a second derivative in the math backend alone."""
        found: list[float] = []
        for together in self.case.chunks(units):
            with sdpa_kernel(SDPBackend.MATH):
                alpha = torch.ones(len(together), dtype=torch.float64, device=self.case.model.device)
                alpha.requires_grad_()
                weighted = (alpha * torch.stack(self._objectives(together, X))).sum()
                gradients = torch.autograd.grad(
                    weighted, self.case.policy.registry.parameters, create_graph=True
                )
                h = sum((g * v).sum() for g, v in zip(gradients, direction.tensors, strict=True))
                found += torch.autograd.grad(h, alpha)[0].tolist()
        return found

    def _objectives(self, units: Sequence[UnitObjective], which: int) -> list[Tensor]:
        """L_X(n) or L_Y(n) of each unit, from a forward pass of their own."""
        S = torch.split(self.case.log_probs(units), [len(unit.sequences) for unit in units])
        return [(unit.weights(s)[which].to(s.device) * s).sum() for unit, s in zip(units, S, strict=True)]


def _by_id(units: Sequence[UnitObjective], values: Sequence[float]) -> dict[str, float]:
    return dict(zip((unit.unit.id for unit in units), values, strict=True))
