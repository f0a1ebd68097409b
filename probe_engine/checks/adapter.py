"""PEFT: is the adapter on, apart from the base, and what trains?"""

from __future__ import annotations

from collections.abc import Collection

from torch import nn

from probe_engine.model.adapter_state import AdapterState
from probe_engine.registry import ParameterRegistry
from probe_engine.report import Finding, finding
from probe_engine.sources.checkpoints.names import listed, shown


def adapter_findings(model: nn.Module, registry: ParameterRegistry) -> list[Finding]:
    """PEFT001 to PEFT007, the deepest first; nothing where the model has no adapter.

    Args:
        model: without DDP and `torch.compile` around it.
        registry: its trainable parameters.
    """
    state = AdapterState.of(model)
    if state is None:
        return []
    enabled = _enabled(state)
    waits = enabled.code if enabled.status == "fail" else ""
    return [
        enabled,
        _apart(state),
        _frozen(state, registry, waits),
        _active(state, waits),
        _tied(state),
        _trained(state),
        _named(state, registry),
    ]


def _enabled(state: AdapterState) -> Finding:
    count = len(state.layers)
    if state.disabled:
        off = len(state.disabled)
        return finding(
            "PEFT002",
            "fail",
            f"expected the adapter to be enabled, it is disabled in {off} of its {count} layers "
            f"({shown(state.disabled)}): their forward passes it by, and it gets no gradient",
            value=off,
            threshold=0,
            evidence={"layers": listed(state.disabled)},
        )
    if not state.active & state.available:
        return finding(
            "PEFT002",
            "fail",
            f"expected an active adapter among {_names(state.available)}, found {_names(state.active)}: the "
            "forward uses none, and none gets a gradient",
            value=_names(state.active),
            commands=[f"model.set_adapter({name!r})" for name in sorted(state.available)],
        )
    return finding("PEFT002", "ok", f"{_names(state.active & state.available)} active in {count} layers")


def _apart(state: AdapterState) -> Finding:
    if not state.merged:
        return finding("PEFT003", "ok", "not merged")
    return finding(
        "PEFT003",
        "fail",
        f"expected an adapter beside the base weights, it is merged into {len(state.merged)} of "
        f"{len(state.layers)} ({shown(state.merged)}): the forward uses the sum alone, and no gradient "
        "reaches the adapter",
        value=len(state.merged),
        threshold=0,
        evidence={"layers": listed(state.merged)},
    )


def _frozen(state: AdapterState, registry: ParameterRegistry, waits: str) -> Finding:
    if state.trainable:
        return finding("PEFT001", "ok", f"{_names(state.trainable)} trainable, {len(registry)} tensors")
    if waits:
        return finding("PEFT001", "skip", f"waits for {waits}: what is disabled is frozen as well")
    if len(registry):
        return finding(
            "PEFT001",
            "info",
            f"{_names(state.available)} is frozen; {len(registry)} other parameters train "
            f"({shown(registry.names)})",
            remedy="Nothing, if the adapter is meant to stay as it is.",
            commands=(),
        )
    return finding(
        "PEFT001",
        "fail",
        f"expected trainable adapter parameters, found none in {_names(state.available)} nor anywhere else: "
        "the adapter was loaded frozen, so there is nothing to train and no graph",
        value=0,
    )


def _active(state: AdapterState, waits: str) -> Finding:
    if waits:
        return finding("PEFT004", "skip", f"waits for {waits}")
    idle = state.trainable - state.active
    if not idle:
        return finding("PEFT004", "ok", "what is trainable is active")
    return finding(
        "PEFT004",
        "fail",
        f"expected the trainable adapter to be active, {_names(idle)} is trainable and the forward uses "
        f"{_names(state.active)}: the loss never sees what is to be trained",
        value=_names(state.active),
        threshold=_names(idle),
        commands=[f"model.set_adapter({name!r})" for name in sorted(idle)],
    )


def _tied(state: AdapterState) -> Finding:
    if not state.untied:
        return finding("PEFT005", "ok", "the head is tied to the embedding as configured, or not at all")
    return finding(
        "PEFT005",
        "info",
        "expected one weight for head and embedding (tie_word_embeddings), modules_to_save made two of it",
    )


def _trained(state: AdapterState) -> Finding:
    if not state.fresh:
        return finding("PEFT006", "ok", "the adapter has left its start")
    return finding(
        "PEFT006",
        "info",
        "every lora_B is 0: a fresh adapter. The gradients of lora_A are exactly 0, rightly",
    )


def _named(state: AdapterState, registry: ParameterRegistry) -> Finding:
    if not state.strays:
        return finding("PEFT007", "ok", f"all {len(registry)} trainable tensors are the adapter's")
    return finding(
        "PEFT007",
        "info",
        f"{len(state.strays)} of {len(registry)} trainable tensors are the base model's and no adapter "
        f"configuration names them ({shown(state.strays)}): saving the adapter leaves them out",
        value=len(state.strays),
        threshold=0,
        evidence={"parameters": listed(state.strays)},
    )


def _names(adapters: Collection[str]) -> str:
    return ", ".join(sorted(adapters)) or "none"
