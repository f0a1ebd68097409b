"""Examine: everything that can be known of a checkpoint before a model is built, cheapest first."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from probe_engine.checks import environment as check
from probe_engine.checks.checkpoint import read_without_unpickling, recognised
from probe_engine.checks.optimizer import learning_rate, refused_state
from probe_engine.checks.rollouts import neighbouring_step
from probe_engine.environment.device import existing_device
from probe_engine.environment.requirements import demands
from probe_engine.errors import ProbeError, UsageError
from probe_engine.events import FindingEvent
from probe_engine.report import finding
from probe_engine.sources.checkpoints.adam_state import Hyperparameters, empty_state
from probe_engine.sources.checkpoints.adapter import find_base, read_adapter_config
from probe_engine.sources.checkpoints.causal_lm import causal_lm_config, read_model_config
from probe_engine.sources.checkpoints.layout import Layout, find_layout
from probe_engine.sources.checkpoints.optimizer_file import (
    SavedOptimizer,
    open_optimizer_file,
    open_optimizer_state,
)
from probe_engine.sources.checkpoints.saved_run import SavedRun, read_saved_run
from probe_engine.sources.checkpoints.step import read_step
from probe_engine.sources.checkpoints.tokenizer import FoundTokenizer, read_tokenizer
from probe_engine.sources.checkpoints.training_arguments import read_training_arguments
from probe_engine.sources.checkpoints.weights import ADAPTER_FILES, WeightFiles, find_weights
from probe_engine.sources.rollouts.extent import rollouts_extent
from probe_engine.sources.rollouts.locate import located, rollouts_found
from probe_engine.spec import RunSpec
from probe_engine.stages import Stage
from probe_engine.stages.adopt import SMALL
from probe_engine.stages.memory import before_loading
from probe_engine.types import Scalar


@dataclass(frozen=True)
class Examined:
    """A checkpoint whose parts are there and whole, as far as reading without building tells."""

    device: torch.device
    layout: Layout
    step: int | None
    """Optimizer steps done when it was written, where anything tells it."""
    trainer: Mapping[str, Scalar]
    config: Any
    """The model's transformers configuration."""
    source: str
    """What to call the model in messages."""
    weights: WeightFiles | None
    """Of the model; None where they came with `saved`."""
    adapter: tuple[dict[str, Any], WeightFiles] | None
    base: Path | None
    saved: SavedRun | None
    tokenizer: FoundTokenizer
    optimizer: SavedOptimizer


def examine(spec: RunSpec, *, may_lack_rollouts: bool = False) -> Stage[Examined]:
    """Versions, device, names, headers, rollouts, memory, optimizer; the model's weights stay on disk.

    Args:
        spec: the options.
        may_lack_rollouts: where none are found, random ones stand in.

    Raises:
        UsageError: no checkpoint was named.
        ProbeError: the device is of no use (ENV002), a part of the checkpoint or the rollouts can't be read
            (CKPT001 to CKPT003, CKPT007, ROLL013, ROLL017), or the weights do not fit into memory (ENV004).
    """
    if spec.checkpoint is None:
        raise UsageError("expected a checkpoint, got none", "probe-tui CHECKPOINT, or probe-tui --demo")
    yield FindingEvent(finding=check.versions(demands()))
    device = existing_device(spec.device)
    dtype: torch.dtype = getattr(torch, spec.dtype)
    yield FindingEvent(finding=check.computes([(device, dtype)]))
    layout = find_layout(Path(spec.checkpoint))
    arguments = read_training_arguments(layout.root)
    step = read_step(layout.root, layout.name)
    yield FindingEvent(finding=recognised(layout.format, step))
    yield FindingEvent(finding=read_without_unpickling(arguments))

    try:
        parts = yield from _PARTS[layout.kind](spec, layout)
    except ProbeError:
        # One run says all that is to be mended.
        yield from _besides(spec, layout, arguments.values, step.value)
        raise
    tokenizer = read_tokenizer(parts.tokenizer_folders)
    saved_step = None if parts.saved is None else parts.saved.step
    done = step.value if saved_step is None else saved_step
    lacking = may_lack_rollouts and not rollouts_found(spec, done)
    extent = SMALL if lacking else rollouts_extent(spec, arguments.values, done, tokenizer.tokenizer)
    adapter_files = None if parts.adapter is None else parts.adapter[1]
    room = before_loading(
        spec, device, layout, parts.weights, adapter_files, parts.saved, parts.config, extent
    )
    yield FindingEvent(finding=room)
    optimizer = _optimizer(spec, layout, parts.saved)
    if optimizer.refusal is not None:
        yield FindingEvent(finding=refused_state(optimizer.refusal))
    return Examined(
        device=device,
        layout=layout,
        step=done,
        trainer=arguments.values,
        config=parts.config,
        source=parts.source,
        weights=parts.weights,
        adapter=parts.adapter,
        base=parts.base,
        saved=parts.saved,
        tokenizer=tokenizer,
        optimizer=optimizer,
    )


def _besides(spec: RunSpec, layout: Layout, trainer: Mapping[str, Scalar], step: int | None) -> Stage[None]:
    """What else is wrong, as far as it is seen without the model's files."""
    if layout.kind != "file":
        optimizer = open_optimizer_file(layout.root, trust=spec.trust)
        if optimizer.refusal is not None:
            yield FindingEvent(finding=refused_state(optimizer.refusal))
        rates = Hyperparameters.of(optimizer.groups, optimizer.source, spec.lr, trainer)
        yield FindingEvent(finding=learning_rate(empty_state(rates, "")))
    if spec.prompts is None and rollouts_found(spec, step):
        yield FindingEvent(finding=neighbouring_step(located(spec, step).step, step))


@dataclass(frozen=True)
class _Parts:
    """What differs from layout to layout."""

    config: Any
    source: str
    tokenizer_folders: tuple[Path, ...]
    weights: WeightFiles | None = None
    adapter: tuple[dict[str, Any], WeightFiles] | None = None
    base: Path | None = None
    saved: SavedRun | None = None


def _full(spec: RunSpec, layout: Layout) -> Stage[_Parts]:
    files = find_weights(layout.weights)
    yield _whole(files)
    config = causal_lm_config(read_model_config(layout.weights), str(layout.weights))
    return _Parts(config, str(layout.weights), (layout.weights,), files)


def _peft(spec: RunSpec, layout: Layout) -> Stage[_Parts]:
    adapter = read_adapter_config(layout.weights)
    files = find_weights(layout.weights, ADAPTER_FILES)
    yield _whole(files)
    base = find_base(adapter, layout, spec.base)
    yield FindingEvent(finding=finding("CKPT003", "ok", f"base model {base}"))
    base_files = find_weights(base)
    yield _whole(base_files)
    config = causal_lm_config(read_model_config(base), str(base))
    folders = (layout.weights, layout.root, base)
    return _Parts(config, str(base), folders, base_files, (adapter, files), base)


def _file(spec: RunSpec, layout: Layout) -> Stage[_Parts]:
    saved = read_saved_run(layout.weights, trust=spec.trust)
    yield FindingEvent(finding=finding("CKPT002", "ok", f"{layout.weights.name}: {len(saved.model)} tensors"))
    base = None if spec.base is None else find_base({}, layout, spec.base)
    config = saved.config if base is None else read_model_config(base)
    if config is None:
        raise ProbeError(
            f"{layout.weights}: expected the model's configuration under the key config, found none",
            "Name a folder that holds the model's config.json.",
            code="CKPT001",
            commands=("probe-tui CHECKPOINT --base path/to/model",),
        )
    source = str(layout.weights)
    folders = (layout.weights.parent, *([] if base is None else [base]))
    return _Parts(causal_lm_config(config, source), source, folders, base=base, saved=saved)


_PARTS: Mapping[str, Callable[[RunSpec, Layout], Stage[_Parts]]] = {
    "full": _full,
    "peft": _peft,
    "file": _file,
}


def _whole(files: WeightFiles) -> FindingEvent:
    names = ", ".join(path.name for path in files.paths[:3]) + (", …" if len(files.paths) > 3 else "")
    return FindingEvent(finding=finding("CKPT002", "ok", f"{names}: {sum(files.nbytes)} bytes, whole"))


def _optimizer(spec: RunSpec, layout: Layout, saved: SavedRun | None) -> SavedOptimizer:
    if saved is None:
        return open_optimizer_file(layout.root, trust=spec.trust)
    return open_optimizer_state(saved.optimizer, layout.weights.name, saved.names)
