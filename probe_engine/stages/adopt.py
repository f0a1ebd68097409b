"""Adopt: the caller's own model and optimizer instead of a checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from probe_engine.checks.adapter import adapter_findings
from probe_engine.checks.checkpoint import finite_weights, number_format
from probe_engine.checks.environment import computes, versions
from probe_engine.checks.optimizer import modelled_step, optimizer_findings, optimizer_info
from probe_engine.checks.parameters import present
from probe_engine.environment.requirements import demands
from probe_engine.errors import ProbeError
from probe_engine.events import FindingEvent, Part
from probe_engine.model.sharding import reshard
from probe_engine.model.wrapping import hidden_parameters
from probe_engine.registry import ParameterRegistry, unwrapped
from probe_engine.report import CheckpointInfo, Finding, finding
from probe_engine.sources.checkpoints.adam_state import AdamReading, Hyperparameters, refused
from probe_engine.sources.checkpoints.causal_lm import embedding_rows
from probe_engine.sources.checkpoints.live import read_optimizer
from probe_engine.sources.rollouts.extent import live_extent
from probe_engine.spec import RunSpec
from probe_engine.stages import Stage
from probe_engine.stages.memory import of_loaded
from probe_engine.types import Batch, Extent, Group, Policy, Response, Unit

SMALL = Extent(sequences=6, prompt=4, response=7)
"""Of `small_batch`."""


@dataclass(frozen=True)
class LiveObjects:
    """What a training script hands over."""

    model: nn.Module
    optimizer: torch.optim.Optimizer | None = None
    batch: Any = None
    tokenizer: Any = None


def adopt(spec: RunSpec, live: LiveObjects) -> Stage[Policy]:
    """A policy of live objects; nothing is copied and nothing is changed.

    Raises:
        ProbeError: the parameters are not in this process (GRAD014), or their device computes nothing
            (ENV002).
    """
    yield FindingEvent(finding=versions(demands()))
    model = unwrapped(live.model)
    reshard(model)
    registry = ParameterRegistry.of(model).trainable
    whole = present(hidden_parameters(model), registry)
    yield FindingEvent(finding=whole)
    if whole.status == "fail":
        raise ProbeError("there are no parameters to look at in this process", whole.remedy.text, exit_code=1)
    yield FindingEvent(
        finding=computes((p.device, p.dtype) for p in registry.parameters if p.is_floating_point())
    )
    yield FindingEvent(finding=_memory(spec, live, model, registry))
    reading = _reading(spec, live, registry)
    yield FindingEvent(finding=finite_weights(model.named_parameters()))
    yield FindingEvent(finding=number_format(model.named_parameters()))
    for found in (*adapter_findings(model, registry), *optimizer_findings(reading, registry)):
        yield FindingEvent(finding=found)
    yield FindingEvent(finding=modelled_step(model, {}, reading.learning_rates, spec.policy_temperature))
    yield Part(
        checkpoint=CheckpointInfo(
            path="live objects",
            format="live",
            kind="peft" if len(ParameterRegistry.of(model).lora) else "full",
            step=None if reading.state.step is None else int(reading.state.step),
            base=None,
            trainable_tensors=len(registry),
            trainable_parameters=registry.numel,
            optimizer=optimizer_info(registry, reading.state),
        )
    )
    return Policy(model, registry, live.tokenizer, reading.state)


def small_batch(policy: Policy, spec: RunSpec) -> Stage[Batch]:
    """Two prompts of random tokens with three responses each: enough to see whether gradient flows."""
    yield FindingEvent(
        finding=finding(
            "ROLL005",
            "info",
            "there are no rollouts: random tokens stand in, which gradients flow through as well",
            remedy="To see the real batch, hand it over (batch=…), or name it.",
            commands=("probe-tui CHECKPOINT --rollouts PATH",),
        )
    )
    generator = torch.Generator().manual_seed(spec.seed)
    vocabulary = embedding_rows(policy.model)

    def tokens(length: int) -> tuple[int, ...]:
        return tuple(torch.randint(vocabulary, (length,), generator=generator).tolist())

    units = []
    for index, role in enumerate(("E", "U")):
        responses = tuple(Response(tokens(5 + g), "", advantage=float(g - 1)) for g in range(3))
        group = Group(f"random-{index}", "random tokens", tokens(4), responses)
        units.append(Unit(group.id, "E" if role == "E" else "U", (group,)))
    return Batch(tuple(units), 7, "longest response", spec.weighting, spec.loss_type or "dr_grpo")


def _memory(spec: RunSpec, live: LiveObjects, model: nn.Module, registry: ParameterRegistry) -> Finding:
    match live.batch:
        case None:
            extent = SMALL
        case Batch() as batch:
            lengths = [len(response.tokens) for group in batch.groups for response in group.responses]
            extent = Extent(len(lengths), max(len(group.tokens) for group in batch.groups), max(lengths))
        case batch:
            try:
                extent = live_extent(batch, live.tokenizer)
            except ProbeError as error:
                return finding("ENV004", "skip", f"waits for {error.code}")
    return of_loaded(spec, model, registry, extent)


def _reading(spec: RunSpec, live: LiveObjects, registry: ParameterRegistry) -> AdamReading:
    if live.optimizer is None:
        absent = ProbeError(
            "expected the optimizer, none was handed over: every P falls back to 1", code="OPT001"
        )
        return refused(absent, Hyperparameters.of([], "optimizer", spec.lr, {}))
    return read_optimizer(live.optimizer, registry, spec.lr)
