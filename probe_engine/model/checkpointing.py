"""Gradient checkpointing: a layer keeps its input alone and runs once more when its gradient is due."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer


def checkpointable(model: nn.Module) -> list[nn.Module]:
    """The layers that transformers would checkpoint in training."""
    return [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]


def recomputing(model: nn.Module) -> int:
    """How many layers are run again in the reverse pass, as things are."""
    wrapped = (vars(layer).get("forward") for layer in checkpointable(model))
    return sum(isinstance(forward, partial) and forward.func is _recomputed for forward in wrapped)


@contextmanager
def checkpointed(model: nn.Module) -> Iterator[None]:
    """Inside, these layers are run again in the reverse pass; numbers are the same.

    transformers' own switch works in training mode alone. A layer in that mode drops out: OPT's calls
    `dropout(…, training=self.training)` in its own forward. So the forward is wrapped and all modes stay.
    """
    layers = [layer for layer in checkpointable(model) if "forward" not in vars(layer)]
    for layer in layers:
        layer.forward = partial(_recomputed, layer.forward)
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


def _recomputed(forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    # Keyword arguments go inside: what is recomputed is a function of the positional ones.
    # Nothing is drawn in eval mode, so that no random state needs to be kept.
    return checkpoint(partial(forward, **kwargs), *args, use_reentrant=False, preserve_rng_state=False)
