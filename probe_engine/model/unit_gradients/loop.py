"""`loop`: one autograd call a unit for X, one for Y. The reference (method.md §5)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from probe_engine.estimators.token_statistics import TokenStatistics
from probe_engine.model.sharding import parameter_gradients
from probe_engine.model.teacher_forcing import (
    Layout,
    device_of,
    response_log_probs,
    response_logits,
    response_statistics,
    sequence_log_probs,
)
from probe_engine.model.unit_gradients.interface import Measurement
from probe_engine.model.unit_gradients.objective import UnitObjective, chunks
from probe_engine.model.unit_gradients.unit_by_unit import UnitByUnit
from probe_engine.registry import ParameterRegistry, ParameterVector, wide


@dataclass(frozen=True)
class Loop(UnitByUnit):
    """Forward a unit, differentiate L_X, differentiate L_Y."""

    model: nn.Module
    registry: ParameterRegistry
    micro_batch: int
    """Sequences in one forward pass; a larger unit is summed over several."""
    temperature: float = 1.0
    name: str = "loop"
    keeps_vectors: bool = True

    @property
    def attention(self) -> str:
        """The model's own attention implementation."""
        return str(getattr(getattr(self.model, "config", None), "_attn_implementation", "unknown"))

    def measure(self, objective: UnitObjective) -> Measurement:
        """S, X_u and Y_u of one unit."""
        parts = chunks(objective, self.micro_batch)
        if len(parts) == 1:
            S, tokens = self._scored(objective, parts[0])
            wx, wy = (w.to(S.device) for w in objective.weights(S))
            x, y = self._gradient((wx * S).sum(), retain=True), self._gradient((wy * S).sum())
            return Measurement(objective, S.detach().cpu(), tokens, x, y)
        # The weights of one response depend on S of its whole group: score first, then differentiate.
        S, tokens = self.score(objective)
        x, y = self.differentiate(objective, S)
        return Measurement(objective, S, tokens, x, y)

    def score(self, objective: UnitObjective) -> tuple[Tensor, tuple[TokenStatistics, ...]]:
        """S [N] and each response's token statistics without a graph, in the micro-batches of `measure`."""
        with torch.no_grad():
            scored = [self._scored(objective, part) for part in chunks(objective, self.micro_batch)]
        return torch.cat([s for s, _ in scored]).cpu(), tuple(t for _, ts in scored for t in ts)

    def differentiate(self, objective: UnitObjective, S: Tensor) -> tuple[ParameterVector, ParameterVector]:
        """X_u and Y_u with the weights of a known S [N]."""
        wx, wy = objective.weights(S)
        x, y = VectorSum(self.registry), VectorSum(self.registry)
        for part in chunks(objective, self.micro_batch):
            s = self.forward(objective, part)
            x.add(self._gradient((wx[part].to(s.device) * s).sum(), retain=True))
            y.add(self._gradient((wy[part].to(s.device) * s).sum()))
        return x.total, y.total

    def contract(
        self,
        objective: UnitObjective,
        S: Tensor,
        x_directions: Sequence[ParameterVector],
        y_directions: Sequence[ParameterVector],
    ) -> tuple[list[float], list[float]]:
        """Differentiates once more and takes the dot products."""
        x, y = self.differentiate(objective, S)
        return [x.dot(v) for v in x_directions], [y.dot(v) for v in y_directions]

    def forward(self, objective: UnitObjective, part: slice) -> Tensor:
        """S of some of the unit's sequences, with its graph."""
        logits, layout = self._logits(objective, part)
        return sequence_log_probs(response_log_probs(logits, layout, self.temperature))

    def _scored(self, objective: UnitObjective, part: slice) -> tuple[Tensor, tuple[TokenStatistics, ...]]:
        """The same, with the responses' token statistics."""
        logits, layout = self._logits(objective, part)
        S = sequence_log_probs(response_log_probs(logits, layout, self.temperature))
        return S, response_statistics(logits, layout, self.temperature)

    def _logits(self, objective: UnitObjective, part: slice) -> tuple[Tensor, Layout]:
        layout = Layout.of(objective.sequences[part], device=device_of(self.model))
        return response_logits(self.model, layout), layout

    def _gradient(self, objective: Tensor, *, retain: bool = False) -> ParameterVector:
        gradients = parameter_gradients(self.model, objective, self.registry.parameters, retain_graph=retain)
        return ParameterVector(
            self.registry.ids, tuple(None if g is None else g.to(wide(g.dtype)) for g in gradients)
        )


class VectorSum:
    """A running sum of vectors; a parameter that never had a gradient stays None."""

    def __init__(self, registry: ParameterRegistry) -> None:
        self._ids = registry.ids
        self._tensors: list[Tensor | None] = [None] * len(registry)

    def add(self, vector: ParameterVector, scale: float = 1.0) -> None:
        """Adds `scale · vector`, accumulated in the vector's own (wide) dtype."""
        for index, tensor in enumerate(vector.tensors):
            if tensor is None:
                continue
            mine = self._tensors[index]
            if mine is None:
                self._tensors[index] = tensor * scale
            else:
                mine.add_(tensor, alpha=scale)

    @property
    def total(self) -> ParameterVector:
        """The sum so far."""
        return ParameterVector(self._ids, tuple(self._tensors))
