"""Optimizer states on disk: numbered by the trainer, named by the registry here."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

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
from probe_engine.sources.checkpoints.layout import foreign_layout
from probe_engine.sources.checkpoints.names import listed, shown, unwrapped_name
from probe_engine.sources.checkpoints.torch_file import read_torch
from probe_engine.types import Scalar

FILE_NAME = "optimizer.pt"

_NO_DECAY = re.compile(r"bias|layernorm|rmsnorm|(?:^|\.)norm(?:$|\.)|_norm(?:$|\.)")


@dataclass(frozen=True)
class SavedOptimizer:
    """An optimizer's `state_dict()`, known to be of Adam's family or refused, not yet laid on a model."""

    source: str
    """What to call it in messages."""
    groups: Sequence[Mapping[str, Any]] = ()
    states: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)
    names: Sequence[str] | None = None
    """The parameters' names in index order, where the file lists them."""
    refusal: ProbeError | None = None
    """Why it is of no use: none (OPT001), not Adam's (OPT002), damaged (CKPT002), a pickle (CKPT007)."""


def open_optimizer_file(folder: Path, *, trust: bool = False) -> SavedOptimizer:
    """optimizer.pt of a Hugging Face Trainer. What is wrong with it is in the result, never raised.

    Args:
        folder: the checkpoint.
        trust: unpickle the file where tensors-only reading refuses it.
    """
    path = folder / FILE_NAME
    try:
        if not os.path.isfile(path):
            framework = foreign_layout(folder)
            raise ProbeError(
                f"{folder}: expected {FILE_NAME}, found "
                + (f"states of {framework}, which are not read" if framework else "none"),
                code="OPT001",
            )
        saved = read_torch(path, trust=trust)
    except ProbeError as refusal:
        return SavedOptimizer(FILE_NAME, refusal=refusal)
    return open_optimizer_state(saved, FILE_NAME)


def open_optimizer_state(saved: Any, source: str, names: Sequence[str] | None = None) -> SavedOptimizer:
    """An optimizer's `state_dict()`, its types and family checked.

    Args:
        saved: `{state: {index: {…}}, param_groups: […]}`.
        source: what to call it in messages.
        names: the parameters' names in index order, where the file lists them.
    """
    groups: Sequence[Mapping[str, Any]] = ()
    try:
        groups, states = _parts(saved, source)
        refuse_other_families(states.values(), source)
    except ProbeError as refusal:
        return SavedOptimizer(source, groups, refusal=refusal)
    return SavedOptimizer(source, groups, states, names)


def laid_on(
    saved: SavedOptimizer, model: nn.Module, lr: float | None, trainer: Mapping[str, Scalar]
) -> AdamReading:
    """The state by the names of the model's parameters.

    Args:
        saved: what was opened.
        model: whose parameters the state is laid on.
        lr: `--lr`.
        trainer: the trainer's arguments, for what the state does not tell.
    """
    groups = saved.groups
    hyperparameters = Hyperparameters.of(groups, saved.source, lr, trainer)
    if saved.refusal is not None:
        return refused(saved.refusal, hyperparameters, groups)
    try:
        members, by_name, mapped_by = _named(groups, saved.states, saved.source, model, saved.names)
    except ProbeError as refusal:
        return refused(refusal, hyperparameters, groups)
    return reading_of(groups, members, by_name, hyperparameters, _class_name(groups, trainer), mapped_by)


def decay_groups(model: nn.Module, registry: ParameterRegistry) -> tuple[list[str], list[str]]:
    """The names that `transformers.Trainer` puts into its two groups: with and without weight decay.

    Inside each the order is `named_parameters()`'s, as the registry's is.
    """
    in_layer_norm = tuple(
        f"{name}." for name, module in model.named_modules() if isinstance(module, nn.LayerNorm)
    )
    decay: list[str] = []
    no_decay: list[str] = []
    for name in registry.names:
        exempt = name.startswith(in_layer_norm) or _NO_DECAY.search(name.lower())
        (no_decay if exempt else decay).append(name)
    return decay, no_decay


def _parts(saved: Any, source: str) -> tuple[list[Mapping[str, Any]], dict[int, Mapping[str, Any]]]:
    """The groups and states, their types checked."""
    if saved is None:
        raise ProbeError(f"{source}: expected an optimizer's state, found none", code="OPT001")
    groups = saved.get("param_groups") if isinstance(saved, Mapping) else None
    states = saved.get("state") if isinstance(saved, Mapping) else None
    if (
        not isinstance(groups, list)
        or not isinstance(states, Mapping)
        or not all(isinstance(group, Mapping) and isinstance(group.get("params"), list) for group in groups)
        or not all(isinstance(state, Mapping) for state in states.values())
    ):
        raise _misfit(f"{source}: expected an optimizer's state and param_groups, found something else")
    indices = [index for group in groups for index in group["params"]]
    if not all(isinstance(index, int) for index in indices) or len(set(indices)) < len(indices):
        raise _misfit(f"{source}: expected each parameter's number once in param_groups, found otherwise")
    if not set(states) <= set(indices):
        raise _misfit(
            f"{source}: expected states of the {len(indices)} parameters in param_groups, found others"
        )
    return groups, dict(states)


def _named(
    groups: Sequence[Mapping[str, Any]],
    states: Mapping[int, Mapping[str, Any]],
    source: str,
    model: nn.Module,
    names: Sequence[str] | None,
) -> tuple[dict[str, Mapping[str, Any]], dict[str, Mapping[str, Any]], str]:
    """The groups and the states by name, and how the names were found."""
    indices = [index for group in groups for index in group["params"]]
    everything = ParameterRegistry.of(model)
    registry = everything.trainable
    if all("param_names" in group for group in groups):
        ordered, mapped_by = _name_list([n for group in groups for n in group["param_names"]]), "param_names"
    elif names is not None:
        ordered, mapped_by = _name_list(names), "names_list"
    else:
        ordered, mapped_by = _by_position(groups, model, everything, source), "position"
    if len(ordered) != len(indices):
        raise _misfit(
            f"{source}: expected a name for each of {len(indices)} parameters, found {len(ordered)}"
        )
    by_name = {name: states[index] for name, index in zip(ordered, indices, strict=True) if index in states}
    strangers = sorted(set(by_name) - set(registry.names))
    if strangers:
        raise _misfit(
            f"{source}: expected states of the {len(registry)} trainable parameters, found states of "
            f"{len(strangers)} others ({shown(strangers)})",
            names=strangers,
        )
    wrong = misfits(by_name, registry)
    if wrong:
        raise _misfit(
            f"{source}: expected moments of the parameters' shapes, found {len(wrong)} of {len(by_name)} "
            f"that differ ({shown(wrong)}): this state belongs to another model or order",
            names=wrong,
        )
    of_each = (group for group in groups for _ in group["params"])
    return dict(zip(ordered, of_each, strict=True)), by_name, mapped_by


def _name_list(names: Sequence[Any]) -> list[str]:
    return [unwrapped_name(str(name)) for name in names]


def _by_position(
    groups: Sequence[Mapping[str, Any]], model: nn.Module, everything: ParameterRegistry, source: str
) -> list[str]:
    """Names in index order: one group in the model's order, two as the Hugging Face Trainer makes them."""
    counts = [len(group["params"]) for group in groups if group["params"]]
    registry = everything.trainable
    if len(counts) == 1:
        expected = [list(registry.names)]
        if counts == [len(everything)]:  # torch.optim.AdamW(model.parameters()), frozen ones included
            expected = [list(everything.names)]
    else:
        expected = [names for names in decay_groups(model, registry) if names]
    if counts != [len(names) for names in expected]:
        raise _misfit(
            f"{source}: expected {' + '.join(str(len(names)) for names in expected)} parameters, the "
            f"trainable ones of this model, found {' + '.join(map(str, counts)) or 'none'} in its groups",
        )
    return [name for names in expected for name in names]


def _class_name(groups: Sequence[Mapping[str, Any]], trainer: Mapping[str, Scalar]) -> str:
    decoupled = next((g["decoupled_weight_decay"] for g in groups if "decoupled_weight_decay" in g), None)
    if decoupled is None:
        return "AdamW" if str(trainer.get("optim", "")).startswith("adamw") else "Adam or AdamW"
    return "AdamW" if decoupled else "Adam"


def _misfit(message: str, names: Sequence[str] = ()) -> ProbeError:
    return ProbeError(
        f"{message}. Every parameter falls back to P = 1",
        code="OPT003",
        evidence={"parameters": listed(names)} if names else {},
    )
