"""The forecast of memory: before a checkpoint is loaded, and for a model that is there already."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.distributed.tensor import DTensor

from probe_engine.checks.environment import memory
from probe_engine.environment.memory import free_memory, own_memory
from probe_engine.model.memory import Need, Sizes, need
from probe_engine.model.teacher_forcing import device_of
from probe_engine.registry import ParameterRegistry
from probe_engine.report import Finding, finding
from probe_engine.sources.checkpoints.layout import Layout
from probe_engine.sources.checkpoints.optimizer_file import FILE_NAME
from probe_engine.sources.checkpoints.saved_run import SavedRun
from probe_engine.sources.checkpoints.weights import WeightFiles
from probe_engine.spec import RunSpec
from probe_engine.types import Extent


def before_loading(
    spec: RunSpec,
    device: torch.device,
    layout: Layout,
    weights: WeightFiles | None,
    adapter: WeightFiles | None,
    saved: SavedRun | None,
    config: Any,
    extent: Extent,
) -> Finding:
    """ENV004 of a checkpoint on disk.

    Args:
        spec: the options.
        device: where the model will go.
        layout: of the checkpoint.
        weights: of the model; None where they came with `saved`.
        adapter: its files, where there is one: then only its parameters train.
        saved: what is in memory already.
        config: the model's transformers configuration.
        extent: of the rollouts.

    Raises:
        ProbeError: the weights alone do not fit (ENV004).
    """
    held = 0 if saved is None else sum(tensor.numel() for tensor in saved.model.values())
    base = held if weights is None else _numbers(weights, config)
    trainable = base if adapter is None else _numbers(adapter, config)
    state = layout.root / FILE_NAME
    sizes = Sizes(
        weights=base if adapter is None else base + trainable,
        held=0,
        trainable=trainable,
        optimizer=os.path.getsize(state) if saved is None and os.path.isfile(state) else 0,
        config=config,
        extent=extent,
        room=own_memory(device),
    )
    return memory(partial(_need, sizes, spec), spec, free_memory(device), spec.dtype)


def of_loaded(spec: RunSpec, model: nn.Module, registry: ParameterRegistry, extent: Extent) -> Finding:
    """ENV004 of a model in memory: what its gradients and passes will take besides.

    Args:
        spec: the options.
        model: on its device.
        registry: its trainable parameters.
        extent: of the rollouts.
    """
    sizes = loaded_sizes(model, registry, extent)
    if not hasattr(sizes.config, "get_text_config"):
        return finding("ENV004", "skip", "the model has no configuration of transformers to estimate from")
    dtype = str(next(model.parameters()).dtype).removeprefix("torch.")
    return memory(partial(_need, sizes, spec), spec, free_memory(device_of(model)), dtype)


def loaded_sizes(model: nn.Module, registry: ParameterRegistry, extent: Extent) -> Sizes:
    """Of a model in memory, beside which no weights are loaded any more."""
    return Sizes(
        weights=0,
        held=_here(list(model.parameters())),
        trainable=_here(registry.parameters),
        optimizer=0,
        config=getattr(model, "config", None),
        extent=extent,
        room=own_memory(device_of(model)),
    )


def _need(sizes: Sizes, spec: RunSpec, dtype: str, micro_batch: int, budget: int) -> Need:
    return need(
        sizes,
        getattr(torch, dtype),
        micro_batch=micro_batch,
        budget=budget,
        method=spec.method,
        rao_blackwell=spec.rao_blackwell,
    )


def _numbers(files: WeightFiles, config: Any) -> int:
    """By the headers; files without one hold numbers of the configuration's dtype."""
    if files.numbers is not None:
        return files.numbers
    written = getattr(config, "dtype", None)
    return sum(files.nbytes) // (written.itemsize if isinstance(written, torch.dtype) else 4)


def _here(parameters: Sequence[nn.Parameter]) -> int:
    """Numbers that this process holds: of a sharded parameter its own shard."""
    return sum((p.to_local() if isinstance(p, DTensor) else p).numel() for p in parameters)
