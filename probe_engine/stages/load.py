"""Load: from a path to a Policy. Cheap, read-only checks come first, the model last."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from probe_engine.checks.adapter import adapter_findings
from probe_engine.checks.checkpoint import (
    finite_weights,
    keys_with_a_place,
    number_format,
    read_without_unpickling,
    recognised,
    tokenizer_fits,
)
from probe_engine.checks.optimizer import modelled_step, optimizer_findings, optimizer_info
from probe_engine.errors import ProbeError, UsageError
from probe_engine.events import FindingEvent, Part, Progress
from probe_engine.registry import ParameterRegistry
from probe_engine.report import CheckpointInfo, finding
from probe_engine.sources.checkpoints.adam_state import AdamReading
from probe_engine.sources.checkpoints.adapter import attach_adapter, find_base, read_adapter_config
from probe_engine.sources.checkpoints.causal_lm import (
    build_causal_lm,
    embedding_rows,
    read_generation_config,
    read_model_config,
)
from probe_engine.sources.checkpoints.layout import Layout, find_layout
from probe_engine.sources.checkpoints.names import unwrapped_names
from probe_engine.sources.checkpoints.optimizer_file import read_optimizer_file, read_optimizer_state
from probe_engine.sources.checkpoints.saved_run import SavedRun, read_saved_run
from probe_engine.sources.checkpoints.step import read_step
from probe_engine.sources.checkpoints.tokenizer import read_tokenizer
from probe_engine.sources.checkpoints.training_arguments import read_training_arguments
from probe_engine.sources.checkpoints.weights import ADAPTER_FILES, WeightFiles, find_weights, read_weights
from probe_engine.spec import RunSpec
from probe_engine.stages import Stage
from probe_engine.types import Policy, Scalar


def load(spec: RunSpec) -> Stage[Policy]:
    """Reads the checkpoint: model, tokenizer, optimizer state, trainer's arguments.

    Returns:
        The policy, in eval mode, its trainable parameters as the checkpoint implies.

    Raises:
        UsageError: no checkpoint was named, or the device does not exist.
        ProbeError: the checkpoint can't be read (CKPT001 to CKPT005, CKPT007).
    """
    if spec.checkpoint is None:
        raise UsageError("expected a checkpoint, got none", "probe-tui CHECKPOINT, or probe-tui --demo")
    device = existing_device(spec.device)
    layout = find_layout(Path(spec.checkpoint))
    arguments = read_training_arguments(layout.root)
    step = read_step(layout.root, layout.name)
    yield FindingEvent(finding=recognised(layout.format, step))
    yield FindingEvent(finding=read_without_unpickling(arguments))

    read = yield from _READERS[layout.kind](spec, layout)
    model = read.model.to(device)
    yield FindingEvent(finding=keys_with_a_place(read.unexpected, read.tensors))
    yield FindingEvent(finding=finite_weights(model.named_parameters()))
    yield FindingEvent(finding=number_format(model.named_parameters()))
    tokenizer = read_tokenizer(read.tokenizer_folders)
    yield FindingEvent(finding=tokenizer_fits(tokenizer, embedding_rows(model)))

    registry = ParameterRegistry.of(model).trainable
    optimizer = _read_optimizer(spec, layout, read, arguments.values)
    for found in (*adapter_findings(model, registry), *optimizer_findings(optimizer, registry)):
        yield FindingEvent(finding=found)
    yield FindingEvent(
        finding=modelled_step(model, arguments.values, optimizer.learning_rates, spec.policy_temperature)
    )
    saved_step = None if read.saved is None else read.saved.step
    done = step.value if saved_step is None else saved_step
    yield Part(
        checkpoint=CheckpointInfo(
            path=spec.checkpoint,
            format=layout.format,
            kind="peft" if layout.kind == "peft" else "full",
            step=done,
            base=None if read.base is None else str(read.base),
            trainable_tensors=len(registry),
            trainable_parameters=registry.numel,
            optimizer=optimizer_info(registry, optimizer.state),
        )
    )
    return Policy(model, registry, tokenizer.tokenizer, optimizer.state, arguments.values, done)


def existing_device(name: str) -> torch.device:
    """The device that `--device` names; `auto` is CUDA where there is one.

    Raises:
        UsageError: there is no such device here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        if device.type != "meta":
            torch.empty(1, device=device)
            return device
    except (RuntimeError, AssertionError, NotImplementedError):
        pass  # torch's three ways of saying that it was not built for a device or finds none
    raise UsageError(
        f"--device: expected a device of this machine, got {name!r}",
        "--device cpu always works; auto chooses",
    )


@dataclass(frozen=True)
class _Read:
    """What the layouts have in common once their weights are in a model."""

    model: Any
    tensors: int
    """In the files that filled the model."""
    unexpected: tuple[str, ...]
    tokenizer_folders: tuple[Path, ...]
    base: Path | None = None
    saved: SavedRun | None = None


def _full(spec: RunSpec, layout: Layout) -> Stage[_Read]:
    files = find_weights(layout.weights)
    yield _whole(files)
    return (yield from _folder(spec, layout.weights, files))


def _peft(spec: RunSpec, layout: Layout) -> Stage[_Read]:
    config = read_adapter_config(layout.weights)
    adapter_files = find_weights(layout.weights, ADAPTER_FILES)
    yield _whole(adapter_files)
    base = find_base(config, layout, spec.base)
    yield FindingEvent(finding=finding("CKPT003", "ok", f"base model {base}"))
    base_files = find_weights(base)
    yield _whole(base_files)
    state = yield from _state_dict(adapter_files, spec.trust)
    read = yield from _folder(spec, base, base_files)
    model = attach_adapter(read.model, str(base), config, state, layout)
    yield FindingEvent(finding=finding("CKPT004", "ok", f"{len(state)} adapter tensors fit the base"))
    folders = (layout.weights, layout.root, *read.tokenizer_folders)
    return _Read(model, read.tensors, read.unexpected, folders, base)


def _file(spec: RunSpec, layout: Layout) -> Stage[_Read]:
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
    state = unwrapped_names(saved.model, str(layout.weights))
    loaded = build_causal_lm(config, state, getattr(torch, spec.dtype), str(layout.weights))
    folders = (layout.weights.parent, *([] if base is None else [base]))
    return _Read(loaded.model, len(state), loaded.unexpected, folders, base, saved)


def _folder(spec: RunSpec, folder: Path, files: WeightFiles) -> Stage[_Read]:
    """A full model from a folder: the checkpoint itself or an adapter's base."""
    config = read_model_config(folder)
    state = yield from _state_dict(files, spec.trust)
    loaded = build_causal_lm(config, state, getattr(torch, spec.dtype), str(folder))
    read_generation_config(loaded.model, folder)
    return _Read(loaded.model, len(state), loaded.unexpected, (folder,))


def _state_dict(files: WeightFiles, trust: bool) -> Stage[dict[str, Tensor]]:
    state: dict[str, Tensor] = {}
    done = 0
    for path, nbytes in zip(files.paths, files.nbytes, strict=True):
        state |= read_weights(path, trust=trust)
        done += nbytes
        yield Progress(stage="load", done=done, total=sum(files.nbytes), unit="bytes")
    return unwrapped_names(state, str(files.paths[0].parent))


def _read_optimizer(
    spec: RunSpec, layout: Layout, read: _Read, arguments: Mapping[str, Scalar]
) -> AdamReading:
    saved = read.saved
    if saved is None:
        return read_optimizer_file(layout.root, read.model, spec.lr, arguments, trust=spec.trust)
    source = layout.weights.name
    return read_optimizer_state(saved.optimizer, source, read.model, spec.lr, arguments, saved.names)


def _whole(files: WeightFiles) -> FindingEvent:
    names = ", ".join(path.name for path in files.paths[:3]) + (", …" if len(files.paths) > 3 else "")
    return FindingEvent(finding=finding("CKPT002", "ok", f"{names}: {sum(files.nbytes)} bytes, whole"))


_READERS: Mapping[str, Callable[[RunSpec, Layout], Stage[_Read]]] = {
    "full": _full,
    "peft": _peft,
    "file": _file,
}
