"""Adam's state in a live optimizer, by parameter object."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from probe_engine.errors import ProbeError
from probe_engine.registry import ParameterRegistry
from probe_engine.sources.checkpoints.adam_state import (
    AdamReading,
    Hyperparameters,
    misfits,
    reading_of,
    refuse_other_families,
    refused,
)


def read_optimizer(
    optimizer: torch.optim.Optimizer, registry: ParameterRegistry, lr: float | None = None
) -> AdamReading:
    """The optimizer's state by the registry's names, matched by `id(p)`; nothing is copied.

    Args:
        optimizer: any torch optimizer, wrapped or not.
        registry: the trainable parameters of the model.
        lr: a learning rate that overrides the optimizer's.
    """
    source = type(optimizer).__name__
    members: dict[str, dict[str, Any]] = {}
    states: dict[str, dict[str, Any]] = {}
    strays = []
    for group, parameter in ((g, p) for g in optimizer.param_groups for p in g["params"]):
        name = registry.name_of(parameter)
        if name is None:
            if parameter.requires_grad:
                strays.append(str(list(parameter.shape)))
            continue
        members[name] = group
        if state := optimizer.state.get(parameter):
            states[name] = state
    hyperparameters = Hyperparameters.of(optimizer.param_groups, "optimizer", lr, {})
    try:
        if strays and not members:
            raise ProbeError(
                f"{source}: expected the model's {len(registry)} trainable parameters, found {len(strays)} "
                "other objects: the optimizer was built before the model was wrapped or reloaded",
                "Build the optimizer after the last wrapping of the model.",
                code="OPT009",
            )
        refuse_other_families(states.values(), source)
        if wrong := misfits(states, registry):
            raise ProbeError(
                f"{source}: expected moments of the parameters' shapes, found {wrong[0]}", code="OPT003"
            )
    except ProbeError as refusal:
        reading = refused(refusal, hyperparameters, optimizer.param_groups)
    else:
        reading = reading_of(optimizer.param_groups, members, states, hyperparameters, source, "object")
    return replace(reading, strays=tuple(strays))
