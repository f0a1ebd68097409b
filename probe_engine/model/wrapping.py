"""What wrappers do to parameters: hide them from whoever walks the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.distributed.fsdp import FSDPModule


@dataclass(frozen=True)
class Hidden:
    """Parameters that hold no values here."""

    by: str
    """Who hides them, in words."""
    names: tuple[str, ...]


def hidden_parameters(model: nn.Module) -> Hidden | None:
    """Looks at classes and attributes alone; None where every parameter holds its values, or a shard of them.

    FSDP1 flattens a module's parameters into one; DeepSpeed's ZeRO-3 leaves empty tensors with `ds_id` and
    keeps the values in `ds_tensor`; offloading leaves tensors on the `meta` device.
    """
    named = list(model.named_parameters())
    names = [n for n, _ in named]
    looks: Sequence[tuple[str, list[str]]] = (
        ("DeepSpeed ZeRO-3 (ds_id)", [n for n, p in named if hasattr(p, "ds_id") and _is_empty(p)]),
        (
            "the meta device (offloading, or weights that were never loaded)",
            [n for n, p in named if p.is_meta],
        ),
        ("FSDP1 (FullyShardedDataParallel)", names if _in_fsdp1(model) else []),
        (
            "FSDP2 between micro-batches (set_requires_gradient_sync(False)): a gradient would join theirs",
            names if _accumulates(model) else [],
        ),
    )
    return next((Hidden(by, tuple(hidden)) for by, hidden in looks if hidden), None)


def _is_empty(parameter: nn.Parameter) -> bool:
    return parameter.numel() == 0 or parameter.numel() != getattr(parameter, "ds_numel", parameter.numel())


def _accumulates(model: nn.Module) -> bool:
    """Whether FSDP2 holds gradients back, or is told to, until a later backward pass."""
    states = (m._get_fsdp_state() for m in model.modules() if isinstance(m, FSDPModule))
    groups = [group for state in states for group in _groups(state)]
    return any(not group.reduce_grads or any(map(_holds_gradient, group.fsdp_params)) for group in groups)


def _holds_gradient(parameter: Any) -> bool:
    """In its own dtype or, where gradients are reduced in another one, in that."""
    gathered = getattr(parameter, "_unsharded_param", None)
    return parameter.unsharded_accumulated_grad is not None or getattr(gathered, "grad", None) is not None


def _groups(state: Any) -> list[Any]:
    """torch 2.13 has several groups a module where earlier ones have one or none."""
    single = getattr(state, "_fsdp_param_group", None)
    return list(getattr(state, "_fsdp_param_groups", [single] if single else []))


def _in_fsdp1(model: nn.Module) -> bool:
    return any(
        base.__name__ == "FullyShardedDataParallel"
        for module in model.modules()
        for base in type(module).__mro__
    )
