"""Unit gradients X_u and Y_u and their dot products: several methods behind one interface (method.md §5)."""

from __future__ import annotations

from torch import nn

from probe_engine.model.sharding import is_sharded
from probe_engine.model.unit_gradients.alpha import Alpha
from probe_engine.model.unit_gradients.fused import Fused
from probe_engine.model.unit_gradients.interface import Dots, Measurement, Scored, UnitGradients
from probe_engine.model.unit_gradients.loop import Loop
from probe_engine.model.unit_gradients.objective import UnitObjective, objectives
from probe_engine.registry import ParameterRegistry

__all__ = [
    "Alpha",
    "Dots",
    "Fused",
    "Loop",
    "Measurement",
    "Scored",
    "UnitGradients",
    "UnitObjective",
    "objectives",
    "unit_gradients",
]


def unit_gradients(
    method: str, model: nn.Module, registry: ParameterRegistry, *, micro_batch: int, temperature: float
) -> UnitGradients:
    """The method of that name: fused, loop, alpha or alpha-vjp.

    For `fused` on sharded parameters it is loop: their gradients arrive where no rule looks.
    """
    loop = Loop(model, registry, micro_batch, temperature)
    if method == "fused" and not is_sharded(registry.parameters):
        return Fused(model, registry, micro_batch, temperature)
    if method in ("fused", "loop"):
        return loop
    return Alpha(loop, through_s=method == "alpha-vjp")
