"""Models whose parameters are DTensors: what FSDP2 (`fully_shard`) and tensor parallelism ask of the probe.

A forward pass gathers parameters from all ranks, so all ranks must make the same calls in the same order.
Under FSDP2 the graph ends at gathered copies: gradients arrive in the shards' `.grad` after `backward()`,
averaged over the ranks, and `torch.autograd.grad` finds no path to a shard.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

T = TypeVar("T")


def is_sharded(parameters: Sequence[nn.Parameter]) -> bool:
    """Whether any parameter is a DTensor."""
    return any(isinstance(p, DTensor) for p in parameters)


def reshard(model: nn.Module) -> None:
    """Frees what FSDP2 has gathered: the model holds its shards again, as optimizers know them."""
    if not (dist.is_available() and dist.is_initialized()):
        return  # hundreds of modules are looked through for nothing, at every forward
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def from_first_rank(model: nn.Module, value: T) -> T:
    """The first rank's value on every rank that shares the model's parameters; a plain model's own.

    Args:
        model: with the very same call on all ranks, where it is sharded.
        value: can be pickled.
    """
    mesh = next((p.device_mesh for p in model.parameters() if isinstance(p, DTensor)), None)
    box = [value]
    for group in [] if mesh is None else mesh.get_all_groups():
        dist.broadcast_object_list(box, src=dist.get_global_rank(group, 0), group=group)
    return box[0]


def parameter_gradients(
    model: nn.Module, objective: Tensor, parameters: Sequence[nn.Parameter], *, retain_graph: bool = False
) -> tuple[Tensor | None, ...]:
    """∂objective/∂parameters; None where there is no path. No parameter's `.grad` is touched for long.

    Args:
        model: the module that ran the forward.
        objective: a scalar with its graph.
        parameters: of the model.
        retain_graph: whether the graph is needed once more.

    Returns:
        One gradient a parameter. Under FSDP2 they are DTensors, the mean over the ranks.
    """
    if not any(isinstance(module, FSDPModule) for module in model.modules()):
        return torch.autograd.grad(objective, parameters, retain_graph=retain_graph, allow_unused=True)
    with _own_grads(model):
        objective.backward(retain_graph=retain_graph)
        return tuple(p.grad for p in parameters)


@contextmanager
def _own_grads(model: nn.Module) -> Iterator[None]:
    """Every `.grad` is None inside and the caller's afterwards; hooks that step an optimizer are off."""
    saved = [(p, p.grad, p._post_accumulate_grad_hooks) for p in model.parameters()]
    for p, _, _ in saved:
        p.grad = None
        p._post_accumulate_grad_hooks = None  # type: ignore[assignment]  # the stub leaves out None
    try:
        yield
    finally:
        for p, grad, hooks in saved:
            p.grad, p._post_accumulate_grad_hooks = grad, hooks
