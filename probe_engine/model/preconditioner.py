"""The diagonal Adam preconditioner P (method.md §3)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch import Tensor

from probe_engine.registry import ParameterRegistry
from probe_engine.types import AdamMoments, OptimizerState
from probe_engine.vectors import LazyTensors, ParameterVector, Share, inner, share_of, wide


@dataclass(frozen=True)
class Preconditioner:
    """P, one number a parameter, lazy; a tensor that is None stands for P = 1 (a fallback)."""

    ids: tuple[int, ...]
    diagonal: Sequence[Tensor | None]
    fallbacks: tuple[str, ...]
    """Names of the parameters without usable state."""

    def __call__(self, vector: ParameterVector) -> ParameterVector:
        """P·v, lazy. Apply it exactly once to each dot product: twice is P², a wrong geometry."""
        return self._elementwise(torch.mul, vector)

    def held(self) -> Preconditioner:
        """The same in memory: one vector [P] more, and no arithmetic whenever it is asked for."""
        return replace(self, diagonal=tuple(self.diagonal))

    def inverse(self, vector: ParameterVector) -> ParameterVector:
        """P⁻¹·v, lazy: P Y_u·(P⁻¹v) is Y_u·v."""
        return self._elementwise(torch.div, vector)

    def _elementwise(
        self, operation: Callable[[Tensor, Tensor], Tensor], vector: ParameterVector
    ) -> ParameterVector:
        if self.ids != vector.ids:
            raise ValueError("preconditioner and vector are over different parameter objects")

        def made(share: Share) -> Tensor | None:
            v = vector.share(share)
            p = None if v is None else share_of(self.diagonal, share)
            return v if v is None or p is None else operation(v, p)

        return vector.made(made)


def preconditioner(registry: ParameterRegistry, state: OptimizerState) -> Preconditioner:
    """P = 1/(√v̂ + ε), v̂ = v/(1 − β₂^step), elementwise (method.md (4)); AMSGrad's v is the largest so far.

    A parameter without state, or with a v̂ that is no number, falls back to 1 and is named.
    """
    known = {name for name, moments in state.moments.items() if usable(moments)}
    return _build(registry, state, tuple(name for name in registry.names if name not in known), None)


def stale_ratio(
    registry: ParameterRegistry, state: OptimizerState, p: Preconditioner, mean_y: ParameterVector
) -> float:
    """‖PȲ‖/‖P⁺Ȳ‖ over the parameters that have state (method.md (4b)); nan where none has.

    P⁺ is made of the v̂⁺ that includes the batch's own gradient, as the optimizer's next step would.
    """
    fresh = _build(registry, state, p.fallbacks, mean_y)
    before = after = 0.0
    for share in mean_y.shares:
        y, frozen, now = mean_y.share(share), share_of(p.diagonal, share), share_of(fresh.diagonal, share)
        if y is not None and frozen is not None and now is not None:
            before += inner(moved := frozen * y, moved)
            after += inner(moved := now * y, moved)
    return (before / after) ** 0.5 if after > 0 else float("nan")


def _build(
    registry: ParameterRegistry,
    state: OptimizerState,
    fallbacks: tuple[str, ...],
    gradient: ParameterVector | None,
) -> Preconditioner:
    beta2 = state.betas[1]
    known = {name: state.moments[name] for name in set(registry.names).difference(fallbacks)}

    def diagonal(share: Share) -> Tensor | None:
        parameter, moments = registry.parameters[share.parameter], known.get(registry.names[share.parameter])
        if moments is None:
            return None
        device, dtype = parameter.device, wide(parameter.dtype)
        v, step = share.of(moments.under_root).to(device, dtype), moments.step
        fresh = None if gradient is None else gradient.share(share)
        if fresh is not None:
            now = beta2 * share.of(moments.exp_avg_sq).to(device, dtype) + (1 - beta2) * fresh.square()
            v = now if moments.max_exp_avg_sq is None else torch.maximum(v, now)
            step += 1
        root: Tensor = (v / (1 - beta2**step)).sqrt_()
        return root.add_(state.eps).reciprocal_()

    return Preconditioner(
        registry.ids,
        # Several directions in a row ask for the same share.
        LazyTensors(lru_cache(maxsize=1)(diagonal), registry.parameters),
        fallbacks,
    )


def usable(moments: AdamMoments) -> bool:
    """Whether v̂ exists: a step of at least 1, and v finite and not negative."""
    v = moments.exp_avg_sq
    return moments.step >= 1 and bool(torch.isfinite(v).all()) and not bool((v < 0).any())
