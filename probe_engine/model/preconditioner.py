"""The diagonal Adam preconditioner P (method.md §3)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from probe_engine.registry import ParameterRegistry, ParameterVector, wide
from probe_engine.types import AdamMoments, OptimizerState


@dataclass(frozen=True)
class Preconditioner:
    """P, one number a parameter; a tensor that is None stands for P = 1 (a fallback)."""

    ids: tuple[int, ...]
    diagonal: tuple[Tensor | None, ...]
    fallbacks: tuple[str, ...]
    """Names of the parameters without usable state."""

    def __call__(self, vector: ParameterVector) -> ParameterVector:
        """P·v. Apply it exactly once to each dot product: twice is P², a wrong geometry."""
        if self.ids != vector.ids:
            raise ValueError("preconditioner and vector are over different parameter objects")
        return ParameterVector(
            vector.ids,
            tuple(
                v if v is None or p is None else p * v
                for p, v in zip(self.diagonal, vector.tensors, strict=True)
            ),
        )

    def inverse(self, vector: ParameterVector) -> ParameterVector:
        """P⁻¹·v: P Y_u·(P⁻¹v) is Y_u·v."""
        if self.ids != vector.ids:
            raise ValueError("preconditioner and vector are over different parameter objects")
        return ParameterVector(
            vector.ids,
            tuple(
                v if v is None or p is None else v / p
                for p, v in zip(self.diagonal, vector.tensors, strict=True)
            ),
        )


def preconditioner(registry: ParameterRegistry, state: OptimizerState) -> Preconditioner:
    """P = 1/(√v̂ + ε), v̂ = v/(1 − β₂^step), elementwise (method.md (4)); AMSGrad's v is the largest so far.

    A parameter without state, or with a v̂ that is no number, falls back to 1 and is named.
    """
    return _build(registry, state, None)


def refreshed(
    registry: ParameterRegistry, state: OptimizerState, gradient: ParameterVector
) -> Preconditioner:
    """P⁺ whose v̂⁺ includes the batch's own gradient, as the optimizer's next step would (method.md (4b))."""
    return _build(registry, state, gradient)


def stale_ratio(
    registry: ParameterRegistry, state: OptimizerState, p: Preconditioner, mean_y: ParameterVector
) -> float:
    """‖PȲ‖/‖P⁺Ȳ‖ over the parameters that have state (method.md (4b)); nan where none has."""
    fresh = refreshed(registry, state, mean_y)
    with_state = ParameterVector(
        mean_y.ids,
        tuple(None if d is None else y for d, y in zip(p.diagonal, mean_y.tensors, strict=True)),
    )
    after = fresh(with_state).norm()
    return p(with_state).norm() / after if after > 0 else float("nan")


def _build(
    registry: ParameterRegistry, state: OptimizerState, gradient: ParameterVector | None
) -> Preconditioner:
    beta2 = state.betas[1]
    diagonal: list[Tensor | None] = []
    fallbacks: list[str] = []
    gradients = (None,) * len(registry) if gradient is None else gradient.tensors
    for (name, parameter), fresh in zip(registry, gradients, strict=True):
        moments = state.moments.get(name)
        if moments is None or not usable(moments):
            diagonal.append(None)
            fallbacks.append(name)
            continue
        device, dtype = parameter.device, wide(parameter.dtype)
        v = moments.under_root.to(device, dtype)
        step = moments.step
        if fresh is not None:
            now = beta2 * moments.exp_avg_sq.to(device, dtype) + (1 - beta2) * fresh.square()
            v = now if moments.max_exp_avg_sq is None else torch.maximum(v, now)
            step += 1
        diagonal.append(1 / ((v / (1 - beta2**step)).sqrt() + state.eps))
    return Preconditioner(registry.ids, tuple(diagonal), tuple(fallbacks))


def usable(moments: AdamMoments) -> bool:
    """Whether v̂ exists: a step of at least 1, and v finite and not negative."""
    v = moments.exp_avg_sq
    return moments.step >= 1 and bool(torch.isfinite(v).all()) and not bool((v < 0).any())
