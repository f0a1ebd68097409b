"""Leave the caller's model as it was found."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import nn

from probe_engine.model.autocast import outside_autocast
from probe_engine.model.sharding import reshard
from probe_engine.vectors import wide


@contextmanager
def preserved(model: nn.Module) -> Iterator[None]:
    """Eval mode inside; every module's own mode and the RNG state come back afterwards.

    Eval mode because active dropout would make S differ between passes. Gradients need no saving:
    the probe calls `torch.autograd.grad`, which writes no `.grad`.

    An autocast around the call is off inside, so that S does not depend on where the probe is called from;
    one inside of the model's own forward stays. Compiled modules run as they are written: a compiled graph
    passes over the hooks that look at it, and has no second backward pass.
    """
    modes = [(module, module.training) for module in model.modules()]
    devices = sorted({p.device.index or 0 for p in model.parameters() if p.is_cuda})
    with ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng(devices=devices))
        stack.enter_context(outside_autocast({p.device.type for p in model.parameters()}))
        if "torch._dynamo" in sys.modules:  # else nothing is compiled, and importing it takes seconds
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        model.eval()
        try:
            yield
        finally:
            reshard(model)
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
