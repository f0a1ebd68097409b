"""A step that is taken and taken back: θ⁺ = θ + Δθ, bit-identical weights afterwards (method.md §6)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from probe_engine.registry import ParameterRegistry
from probe_engine.vectors import ParameterVector


@contextmanager
def virtual_step(registry: ParameterRegistry, step: ParameterVector) -> Iterator[None]:
    """θ + Δθ inside, θ outside.

    Args:
        registry: whose parameters move.
        step: Δθ, [P].

    Raises:
        ValueError: the step was built for other parameter objects.
    """
    with _restored(registry, step):
        for share in step.shares:
            parameter, delta = registry.parameters[share.parameter], step.share(share)
            if delta is not None:
                with torch.no_grad():
                    share.of(parameter).add_(delta.to(parameter.dtype))
        yield


@contextmanager
def landed(registry: ParameterRegistry, landing: ParameterVector) -> Iterator[None]:
    """θ⁺ inside, θ outside: θ + (θ⁺ − θ) is not θ⁺ in floating point.

    Args:
        registry: whose parameters move.
        landing: θ⁺, [P].

    Raises:
        ValueError: the landing is of other parameter objects.
    """
    with _restored(registry, landing):
        for share in landing.shares:
            if (new := landing.share(share)) is not None:
                with torch.no_grad():
                    share.of(registry.parameters[share.parameter]).copy_(new)
        yield


@contextmanager
def _restored(registry: ParameterRegistry, moved_by: ParameterVector) -> Iterator[None]:
    """Whatever becomes of the parameters inside, outside they are what they were."""
    if registry.ids != moved_by.ids:
        raise ValueError("the step is over different parameter objects: was the model re-wrapped?")
    saved = [p.detach().clone() for p in registry.parameters]
    # The values come back bit by bit, so a graph that the caller made before may still go backward.
    with torch.autograd.grad_mode._unsafe_preserve_version_counter(registry.parameters):
        try:
            yield
        finally:
            # A copy of the old values, not a subtraction: (θ + Δ) − Δ is not θ in floating point.
            with torch.no_grad():
                for parameter, old in zip(registry.parameters, saved, strict=True):
                    parameter.copy_(old)
