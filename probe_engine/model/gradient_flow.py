"""What one small group shows of the graph from parameters to S."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from probe_engine.estimators.mapping import GradientSquares
from probe_engine.model.teacher_forcing import (
    Layout,
    device_of,
    response_log_probs,
    response_logits,
    sequence_log_probs,
)
from probe_engine.model.unit_gradients import UnitGradients, UnitObjective
from probe_engine.model.unit_gradients.loop import VectorSum
from probe_engine.registry import ParameterRegistry, ParameterVector

UNITS_TRIED = 8
"""What one unit leaves without gradient (an expert that no token chose) another may reach."""


@dataclass(frozen=True)
class GradContext:
    """Autograd's state around the call, and what may keep the model out of a graph."""

    inference_mode: bool
    grad_enabled: bool
    inference_tensors: tuple[str, ...]
    """Parameters and buffers that were born under inference_mode."""
    autocast: str = ""
    """The dtype that autocast would compute in; empty where it is off."""

    @property
    def healthy(self) -> bool:
        """Whether a graph can be recorded at all."""
        return self.grad_enabled and not self.inference_mode and not self.inference_tensors

    def __str__(self) -> str:
        grad = "grad on" if self.grad_enabled else "grad off"
        autocast = f", autocast to {self.autocast}" if self.autocast else ""
        return f"{grad}, inference mode {'on' if self.inference_mode else 'off'}{autocast}"


@dataclass(frozen=True)
class Arrival:
    """What of S arrives at the model's first layer."""

    S: Tensor
    """[N], detached, on the CPU"""
    embedding_gradient_norm: float | None
    """‖∂ΣS/∂(output of the input embeddings)‖; None where it does not arrive"""


@dataclass(frozen=True)
class Gradients:
    """X and Y over the registry, summed over the units tried."""

    x: ParameterVector
    y: ParameterVector
    x_weights_nonzero: bool
    """∂L_X/∂S"""
    y_weights_nonzero: bool
    """∂L_Y/∂S"""
    units: tuple[UnitObjective, ...]
    """Those that were tried, of two responses each."""


def grad_context(model: nn.Module) -> GradContext:
    """Looks at autograd's state around the call and at the model's tensors, without changing anything."""
    tensors = [*model.named_parameters(), *model.named_buffers()]
    devices = sorted({tensor.device.type for _, tensor in tensors})
    dtypes = [
        str(torch.get_autocast_dtype(device)).removeprefix("torch.")
        for device in devices
        if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
    ]
    return GradContext(
        torch.is_inference_mode_enabled(),
        torch.is_grad_enabled(),
        tuple(name for name, tensor in tensors if tensor.is_inference()),
        ", ".join(dict.fromkeys(dtypes)),
    )


def arrival(model: nn.Module, objective: UnitObjective, temperature: float) -> Arrival:
    """One forward of one small group, with the embeddings' output watched, and back to there."""
    sequences = objective.sequences[: max(2, objective.group_slices()[0].stop)]
    layout = Layout.of(sequences, device=device_of(model))
    with _watched_embeddings(model) as outputs:
        S = sequence_log_probs(response_log_probs(response_logits(model, layout), layout, temperature))
    norm = None
    if outputs and S.requires_grad:
        (gradient,) = torch.autograd.grad(S.sum(), outputs[0], allow_unused=True)
        norm = None if gradient is None else float(gradient.double().norm())
    return Arrival(S.detach().cpu(), norm)


def gradients(
    method: UnitGradients,
    registry: ParameterRegistry,
    units: Sequence[UnitObjective],
    squares: GradientSquares | None = None,
) -> Gradients:
    """X and Y of two responses each of as few units as show a gradient for every parameter.

    Args:
        method: how they are computed.
        registry: the trainable parameters.
        units: the first ones are tried, UNITS_TRIED at most.
        squares: gets each Y; one unit's is mostly noise, so that no unit to be tried is spared then.
    """
    x, y = VectorSum(registry), VectorSum(registry)
    x_nonzero = y_nonzero = False
    tried: list[UnitObjective] = []
    for unit in units[:UNITS_TRIED]:
        objective = unit.pair()
        tried.append(objective)
        measured = method.measure(objective)
        wx, wy = objective.weights(measured.S)
        x_nonzero |= bool(wx.any())
        y_nonzero |= bool(wy.any())
        x.add(measured.x)
        y.add(measured.y)
        if squares is not None:
            squares.add(measured.y.tensors)
        del measured  # before the next unit's vectors are made
        if squares is None and x.total.non_zero == y.total.non_zero == len(registry):
            break
    return Gradients(x.total, y.total, x_nonzero, y_nonzero, tuple(tried))


@contextmanager
def _watched_embeddings(model: nn.Module) -> Iterator[list[Tensor]]:
    """Collects the input embeddings' output, as a leaf that requires grad where the embeddings are frozen."""
    outputs: list[Tensor] = []

    def watch(_module: nn.Module, _inputs: object, output: Tensor) -> Tensor:
        watched = output if output.requires_grad else output.detach().requires_grad_()
        outputs.append(watched)
        return watched

    embeddings = getattr(model, "get_input_embeddings", lambda: None)()
    if not isinstance(embeddings, nn.Module):
        yield outputs
        return
    handle = embeddings.register_forward_hook(watch)
    try:
        yield outputs
    finally:
        handle.remove()
