"""`loop`: one autograd call a unit for X, one for Y, one for X of (2b). The reference (method.md §5)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn

from probe_engine.estimators.token_statistics import TokenStatistics
from probe_engine.model.sharding import parameter_gradients
from probe_engine.model.teacher_forcing import (
    Layout,
    device_of,
    rao_blackwell_sums,
    response_log_probs,
    response_logits,
    response_scores,
    response_statistics,
    sequence_log_probs,
)
from probe_engine.model.unit_gradients.interface import Dots, Measurement, Rescored, Scored
from probe_engine.model.unit_gradients.objective import UnitObjective, chunks
from probe_engine.model.unit_gradients.unit_by_unit import UnitByUnit
from probe_engine.model.unit_gradients.vector_sum import VectorSum
from probe_engine.registry import ParameterRegistry
from probe_engine.vectors import ParameterVector, wide

T = TypeVar("T")


@dataclass(frozen=True)
class Forward:
    """One forward pass over n sequences, with its graph."""

    layout: Layout
    logits: Tensor
    """[n, K, V]"""
    S: Tensor
    """[n], float64, nats"""


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

    def measure(self, objective: UnitObjective, *, rao_blackwell: bool = False) -> Measurement:
        """S, X_u and Y_u of one unit."""
        if len(chunks(objective, self.micro_batch)) == 1:
            run = self.forward(objective, slice(None))
            return self.measured(objective, run, rao_blackwell=rao_blackwell)
        # The weights of one response depend on its whole group: score first, then differentiate.
        scored = self.score(objective)
        gradients = self.differentiate(objective, scored.S, scored.tokens if rao_blackwell else ())
        return Measurement(objective, scored.S, scored.tokens, *gradients)

    def measured(
        self, objective: UnitObjective, run: Forward, *, rao_blackwell: bool, retain: bool = False
    ) -> Measurement:
        """S, X_u and Y_u of a unit all of whose sequences were `run`; its graph goes unless `retain`ed."""
        S, tokens = run.S.detach().cpu(), response_statistics(run.logits, run.layout, self.temperature)
        known = tokens if rao_blackwell else ()
        gradients = self._gradients(objective, slice(None), run, S, known, retain=retain)
        return Measurement(objective, S, tokens, *gradients)

    def score(self, objective: UnitObjective) -> Scored:
        """S and token statistics, without a graph, in the micro-batches of `measure`."""
        return Scored(objective, *self._scored(objective, response_statistics))

    def rescore(self, objective: UnitObjective) -> Rescored:
        """S and entropies, likewise."""
        return Rescored(objective, *self._scored(objective, response_scores))

    def _scored(
        self, objective: UnitObjective, of: Callable[[Tensor, Layout, float], tuple[T, ...]]
    ) -> tuple[Tensor, tuple[T, ...]]:
        """S [N] and what is asked `of` each response's tokens."""
        with torch.no_grad():
            runs = (self.forward(objective, part) for part in chunks(objective, self.micro_batch))
            scored = [(run.S, of(run.logits, run.layout, self.temperature)) for run in runs]
        return torch.cat([s for s, _ in scored]).cpu(), tuple(t for _, ts in scored for t in ts)

    def differentiate(
        self, objective: UnitObjective, S: Tensor, tokens: Sequence[TokenStatistics] = ()
    ) -> tuple[ParameterVector, ParameterVector, ParameterVector | None]:
        """X_u and Y_u with the weights of a known S [N]; X of (2b) with those of known `tokens`."""
        parts = chunks(objective, self.micro_batch)
        if len(parts) == 1:
            return self._gradients(objective, parts[0], self.forward(objective, parts[0]), S, tokens)
        x, y, x_rb = (VectorSum(self.registry) for _ in range(3))
        for part in parts:
            found = self._gradients(objective, part, self.forward(objective, part), S, tokens)
            for total, vector in zip((x, y, x_rb), found, strict=True):
                if vector is not None:
                    total.add(vector)
            del found, vector  # before the next part's are made
        return x.total, y.total, x_rb.total if tokens else None

    def contract(
        self,
        objective: UnitObjective,
        S: Tensor,
        x_directions: Sequence[ParameterVector],
        y_directions: Sequence[ParameterVector],
        tokens: Sequence[TokenStatistics] = (),
    ) -> Dots:
        """Differentiates once more and takes the dot products."""
        x, y, x_rb = self.differentiate(objective, S, tokens)
        return Dots(
            [x.dot(v) for v in x_directions],
            [y.dot(v) for v in y_directions],
            [] if x_rb is None else [x_rb.dot(v) for v in x_directions],
        )

    def forward(self, objective: UnitObjective, part: slice) -> Forward:
        """Some of the unit's sequences under the model."""
        layout = Layout.of(objective.sequences[part], device=device_of(self.model))
        logits = response_logits(self.model, layout)
        return Forward(
            layout, logits, sequence_log_probs(response_log_probs(logits, layout, self.temperature))
        )

    def rao_blackwell(
        self, objective: UnitObjective, part: slice, run: Forward, tokens: Sequence[TokenStatistics]
    ) -> Tensor:
        """What (2b) differentiates, [n], of the sequences that were `run`; `tokens` are those of all."""
        to_come = objective.entropies_to_come(tokens)[part]
        return rao_blackwell_sums(run.logits, run.layout, to_come, self.temperature)

    def _gradients(
        self,
        objective: UnitObjective,
        part: slice,
        run: Forward,
        S: Tensor,
        tokens: Sequence[TokenStatistics],
        *,
        retain: bool = False,
    ) -> tuple[ParameterVector, ParameterVector, ParameterVector | None]:
        """X and Y of a part, and X of (2b) where there are `tokens`."""

        def weighted(weights: Tensor, of: Tensor) -> Tensor:
            return (weights[part].to(of.device) * of).sum()

        wx, wy = objective.weights(S)
        x = self._gradient(weighted(wx, run.S), retain=True)
        y = self._gradient(weighted(wy, run.S), retain=retain or bool(tokens))
        if not tokens:
            return x, y, None
        sums = self.rao_blackwell(objective, part, run, tokens)
        return x, y, self._gradient(weighted(objective.rao_blackwell_weights, sums), retain=retain)

    def _gradient(self, objective: Tensor, *, retain: bool = False) -> ParameterVector:
        gradients = parameter_gradients(self.model, objective, self.registry.parameters, retain_graph=retain)
        return ParameterVector(
            self.registry.ids, tuple(None if g is None else g.to(wide(g.dtype)) for g in gradients)
        )
