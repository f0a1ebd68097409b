"""Leave the caller's model as it was found."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from probe_engine.registry import wide


@contextmanager
def preserved(model: nn.Module) -> Iterator[None]:
    """Eval mode inside; every module's own mode and the RNG state come back afterwards.

    Eval mode because active dropout would make S differ between passes. Gradients need no saving:
    the probe calls `torch.autograd.grad`, which writes no `.grad`.
    """
    modes = [(module, module.training) for module in model.modules()]
    devices = sorted({p.device.index or 0 for p in model.parameters() if p.is_cuda})
    with torch.random.fork_rng(devices=devices):
        model.eval()
        try:
            yield
        finally:
            for module, training in modes:
                module.training = training


@contextmanager
def in_float32(model: nn.Module) -> Iterator[None]:
    """Floating-point weights and buffers in float32 or wider inside, the very same tensors afterwards.

    bf16 weights absorb |Δw| < |w|/256, so a virtual step needs wider ones (method.md §6).
    """
    tensors = [*model.parameters(), *model.buffers()]
    narrow = [(t, t.data) for t in tensors if t.is_floating_point() and t.dtype != wide(t.dtype)]
    for tensor, data in narrow:
        tensor.data = data.to(wide(data.dtype))
    try:
        yield
    finally:
        for tensor, data in narrow:
            tensor.data = data
