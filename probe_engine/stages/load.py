"""Load: from a path to a Policy. `examine` has seen that the parts are whole; here the model is built."""

from __future__ import annotations

import shlex
from pathlib import Path

import msgspec
import torch
from torch import Tensor

from probe_engine.checks.adapter import adapter_findings
from probe_engine.checks.checkpoint import finite_weights, keys_with_a_place, number_format, tokenizer_fits
from probe_engine.checks.optimizer import modelled_step, optimizer_findings, optimizer_info
from probe_engine.events import FindingEvent, Part, Progress
from probe_engine.registry import ParameterRegistry
from probe_engine.report import CheckpointInfo, Finding, finding
from probe_engine.sources.checkpoints.adapter import attach_adapter
from probe_engine.sources.checkpoints.causal_lm import (
    LoadedModel,
    build_causal_lm,
    embedding_rows,
    read_generation_config,
)
from probe_engine.sources.checkpoints.layout import earlier_checkpoint
from probe_engine.sources.checkpoints.names import unwrapped_names
from probe_engine.sources.checkpoints.optimizer_file import laid_on
from probe_engine.sources.checkpoints.weights import WeightFiles, read_weights
from probe_engine.spec import RunSpec
from probe_engine.stages import Stage
from probe_engine.stages.examine import Examined, examine
from probe_engine.types import Policy

OUT_BY_ANOTHER = ("CKPT006", "OPT003", "OPT004", "OPT005", "OPT006", "OPT007")
"""Faults that an earlier checkpoint of the run may not have."""


def load(spec: RunSpec, *, may_lack_rollouts: bool = False) -> Stage[Policy]:
    """Reads the checkpoint: model, tokenizer, optimizer state, trainer's arguments.

    Args:
        spec: the options.
        may_lack_rollouts: rollouts that are not there are no reason to stop.

    Returns:
        The policy, in eval mode, its trainable parameters as the checkpoint implies.

    Raises:
        UsageError: no checkpoint was named.
        ProbeError: what `examine` raises; or the model can't be built of the parts (CKPT001, CKPT002,
            CKPT004, CKPT005, CKPT007).
    """
    examined = yield from examine(spec, may_lack_rollouts=may_lack_rollouts)
    loaded, tensors = yield from _model(spec, examined)
    model = loaded.model.to(examined.device)
    yield FindingEvent(finding=keys_with_a_place(loaded.unexpected, tensors))
    before = earlier_checkpoint(examined.layout)
    yield FindingEvent(finding=_pointing(finite_weights(model.named_parameters()), before))
    yield FindingEvent(finding=number_format(model.named_parameters()))
    yield FindingEvent(finding=tokenizer_fits(examined.tokenizer, embedding_rows(model)))

    registry = ParameterRegistry.of(model).trainable
    optimizer = laid_on(examined.optimizer, model, spec.lr, examined.trainer)
    # A file's own "step" may count anything; the Trainer's counts the optimizer's steps.
    done = None if examined.layout.kind == "file" else examined.step
    on_state = [_pointing(f, before) for f in optimizer_findings(optimizer, registry, done)]
    if examined.optimizer.refusal is not None:
        del on_state[0]  # said before the model was built
    for found in (*adapter_findings(model, registry), *on_state):
        yield FindingEvent(finding=found)
    yield FindingEvent(
        finding=modelled_step(model, examined.trainer, optimizer.learning_rates, spec.policy_temperature)
    )
    yield Part(
        checkpoint=CheckpointInfo(
            path=str(spec.checkpoint),
            format=examined.layout.format,
            kind="full" if examined.adapter is None else "peft",
            step=examined.step,
            base=None if examined.base is None else str(examined.base),
            trainable_tensors=len(registry),
            trainable_parameters=registry.numel,
            optimizer=optimizer_info(registry, optimizer.state),
        )
    )
    tokenizer = examined.tokenizer.tokenizer
    # Beside the weights, as in training: what P and the optimizer's next step are made of, again and again.
    state = optimizer.state.to(examined.device)
    return Policy(model, registry, tokenizer, state, examined.trainer, examined.step)


def _pointing(found: Finding, earlier: Path | None) -> Finding:
    """Where another checkpoint is the way out, the one before this is named."""
    if found.code not in OUT_BY_ANOTHER or not found.remedy.text or earlier is None:
        return found
    commands = [*found.remedy.commands, f"probe-tui {shlex.quote(str(earlier))}"]
    return msgspec.structs.replace(found, remedy=msgspec.structs.replace(found.remedy, commands=commands))


def _model(spec: RunSpec, examined: Examined) -> Stage[tuple[LoadedModel, int]]:
    """The model, filled, with its adapter on; and how many tensors the files of the base or model held."""
    adapter = examined.adapter
    adapter_state = {} if adapter is None else (yield from _state_dict(adapter[1], spec.trust))
    if examined.saved is not None:
        state = unwrapped_names(examined.saved.model, examined.source)
    else:
        assert examined.weights is not None, "a layout has weight files or a saved run"
        state = yield from _state_dict(examined.weights, spec.trust)
    dtype: torch.dtype = getattr(torch, spec.dtype)
    loaded = build_causal_lm(examined.config, state, dtype, examined.source)
    if examined.weights is not None:
        read_generation_config(loaded.model, examined.weights.folder)
    if adapter is not None:
        model = attach_adapter(loaded.model, examined.source, adapter[0], adapter_state, examined.layout)
        yield FindingEvent(
            finding=finding("CKPT004", "ok", f"{len(adapter_state)} adapter tensors fit the base")
        )
        loaded = LoadedModel(model, loaded.unexpected)
    return loaded, len(state)


def _state_dict(files: WeightFiles, trust: bool) -> Stage[dict[str, Tensor]]:
    state: dict[str, Tensor] = {}
    done = 0
    for path, nbytes in zip(files.paths, files.nbytes, strict=True):
        state |= read_weights(path, trust=trust)
        done += nbytes
        yield Progress(stage="load", done=done, total=sum(files.nbytes), unit="bytes")
    return unwrapped_names(state, str(files.folder))
