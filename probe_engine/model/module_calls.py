"""One forward pass, seen module by module: who took and gave what, and whether a graph was recorded."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import CheckpointFunction


@dataclass
class Call:
    """One call of one module."""

    name: str
    """As `model.get_submodule` takes it; empty for the model itself."""
    module: nn.Module
    parent: Call | None
    grad_enabled: bool
    """Whether gradients were on where the module was called."""
    trainable: set[int]
    """`id(p)` of the trainable parameters that took part: its own and those of modules called inside."""
    own: tuple[str, ...] = ()
    """Names of its own trainable parameters."""
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    output: Any = None

    @property
    def input_requires_grad(self) -> bool:
        """Any tensor among the arguments."""
        return any(t.requires_grad for t in tensors((self.args, self.kwargs)))

    @property
    def output_requires_grad(self) -> bool:
        """Any tensor of the output."""
        return any(t.requires_grad for t in tensors(self.output))


@contextmanager
def watched_calls(model: nn.Module, finished: Callable[[Call], None]) -> Iterator[None]:
    """Hands each call to `finished` as it ends, innermost first; no hook is left behind.

    What `finished` itself calls is not watched. A call's tensors are let go once its own hook returns,
    unless `finished` keeps them.
    """
    stack: list[Call] = []
    busy = False

    def enter(name: str, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if busy:
            return
        own = {f"{name}.{key}".lstrip("."): p for key, p in _own_parameters(module) if p.requires_grad}
        parent, trainable = stack[-1] if stack else None, {id(p) for p in own.values()}
        stack.append(Call(name, module, parent, torch.is_grad_enabled(), trainable, tuple(own), args, kwargs))

    def leave(module: nn.Module, output: Any) -> None:
        nonlocal busy
        if busy:
            return
        call = stack.pop()
        while call.module is not module:  # a call inside raised and the model went on without it
            call = stack.pop()
        call.output = output
        if call.parent is not None:
            call.parent.trainable |= call.trainable
        busy = True
        try:
            finished(call)
        finally:
            busy = False
            call.args, call.kwargs, call.output = (), {}, None

    handles = []
    try:
        for name, module in model.named_modules():
            handles.append(
                module.register_forward_pre_hook(
                    lambda m, args, kwargs, name=name: enter(name, m, args, kwargs), with_kwargs=True
                )
            )
            handles.append(module.register_forward_hook(lambda m, _args, output: leave(m, output)))
        yield
    finally:
        for handle in handles:
            handle.remove()


def _own_parameters(module: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Those that a call of the module may use itself: its own, and those in containers, which nobody calls.

    PEFT keeps the matrices of embeddings in ParameterDicts, by adapter: only active ones take part.
    """
    yield from module.named_parameters(recurse=False)
    off = getattr(module, "disable_adapters", False) or getattr(module, "merged", False)
    active = getattr(module, "active_adapters", None)
    for name, child in () if off else module.named_children():
        if isinstance(child, nn.ParameterDict | nn.ParameterList):
            for key, p in child.named_parameters(recurse=False):
                if active is None or key in active:
                    yield f"{name}.{key}", p


def tensors(nested: object) -> Iterator[Tensor]:
    """The tensors in tuples, lists, mappings (a ModelOutput is one) and objects that hold fields."""
    if isinstance(nested, Tensor):
        yield nested
    elif isinstance(nested, Mapping):
        for held in nested.values():
            yield from tensors(held)
    elif isinstance(nested, tuple | list):
        for held in nested:
            yield from tensors(held)
    elif hasattr(nested, "__dataclass_fields__"):
        yield from tensors([getattr(nested, name) for name in nested.__dataclass_fields__])


def inside_reentrant_checkpoint() -> bool:
    """Whether the caller runs in the grad-less forward of `checkpoint(…, use_reentrant=True)`."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_code is CheckpointFunction.forward.__code__:
            return True
        frame = frame.f_back
    return False
