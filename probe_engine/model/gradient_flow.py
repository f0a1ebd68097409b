"""What one small group shows of the graph from parameters to S."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from probe_engine.estimators.mapping import GradientSquares
from probe_engine.model.sharding import is_sharded
from probe_engine.model.unit_gradients import Loop, Measurement, Scored, UnitGradients, UnitObjective
from probe_engine.model.unit_gradients.objective import chunks
from probe_engine.model.unit_gradients.vector_sum import VectorSum
from probe_engine.registry import ParameterRegistry
from probe_engine.vectors import ParameterVector, Share

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
    """One small group by plain autograd, whose S is followed back to the model's first layer."""

    S: Tensor
    """[N], detached, on the CPU"""
    embedding_gradient_norm: float | None
    """‖∂ΣS/∂(output of the input embeddings)‖; None where it does not arrive"""
    measured: Measurement | None
    """X and Y; None where S has no graph, and where they take passes of their own"""


@dataclass(frozen=True)
class Gradients:
    """X and Y over the registry, summed over the units tried."""

    x: ParameterVector
    y: ParameterVector
    x_weights_nonzero: bool
    """∂L_X/∂S"""
    y_weights_nonzero: bool
    """∂L_Y/∂S"""

    @classmethod
    def of(cls, measured: Measurement) -> Gradients:
        """Of one unit."""
        wx, wy = measured.objective.weights(measured.S)
        return cls(measured.x, measured.y, bool(wx.any()), bool(wy.any()))

    def complete(self, expected: int) -> bool:
        """Whether so many parameters have gradients that are not 0."""
        return min(self.x.non_zero, self.y.non_zero) >= expected


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


def arrival(plain: Loop, objective: UnitObjective, *, rao_blackwell: bool) -> Arrival:
    """One forward of one small group, with the embeddings' output watched, and back to there.

    Args:
        plain: whose X and Y come from the same forward, where they would from one alone.
        objective: the group's.
        rao_blackwell: whether X of (2b) is wanted as well.
    """
    alone = len(chunks(objective, plain.micro_batch)) > 1 or is_sharded(plain.registry.parameters)
    first = slice(0, max(2, objective.group_slices()[0].stop)) if alone else slice(None)
    with _watched_embeddings(plain.model) as outputs:
        run = plain.forward(objective, first)
    S, measured = run.S.detach().cpu(), None
    if not run.S.requires_grad:
        return Arrival(S, None, None)
    if not alone and len(plain.registry):
        measured = plain.measured(objective, run, rao_blackwell=rao_blackwell, retain=True)
    if not outputs:
        return Arrival(S, None, measured)
    (gradient,) = torch.autograd.grad(run.S.sum(), outputs[0], allow_unused=True)
    return Arrival(S, None if gradient is None else float(gradient.double().norm()), measured)


def gradients(
    method: UnitGradients,
    registry: ParameterRegistry,
    units: Sequence[UnitObjective],
    expected: int,
    squares: GradientSquares | None = None,
) -> Gradients:
    """X and Y of two responses each of as few units as show a gradient for every parameter.

    Args:
        method: how they are computed.
        registry: the trainable parameters.
        units: the first ones are tried, UNITS_TRIED at most.
        expected: parameters whose gradient is to be there and not 0.
        squares: gets each Y; one unit's is mostly noise, so that no unit to be tried is spared then.
    """
    pairs = [unit.pair() for unit in units[:UNITS_TRIED]]
    sums = _Sums(registry, squares)
    # One at least by itself: what is handed on share by share has both X and Y, or neither.
    for pair in pairs if squares is None else pairs[:1]:
        sums.add(method.measure(pair))
        if squares is None and sums.found.complete(expected):
            break
    if squares is not None:
        for scored in method.measurements(pairs[1:], sums):
            sums.weigh(scored)
    return sums.found


class _Sums:
    """ΣX and ΣY over the units that come, whole or share by share."""

    def __init__(self, registry: ParameterRegistry, squares: GradientSquares | None) -> None:
        self._x, self._y = VectorSum(registry), VectorSum(registry)
        self._x_weights_nonzero = self._y_weights_nonzero = False
        self._squares = squares

    def add(self, measured: Measurement) -> None:
        """One unit."""
        self.weigh(measured)
        self._x.add(measured.x)
        self._y.add(measured.y)
        for index, of_y in enumerate(measured.y.tensors):
            if self._squares is not None and of_y is not None:
                self._squares.add(Share(index), of_y)

    def __call__(
        self, share: Share, _units: Sequence[int], x: Tensor, y: Tensor, _x_rb: Tensor | None = None, /
    ) -> None:
        """A share of X and Y of each of some units."""
        for of_x, of_y in zip(x, y, strict=True):
            self._x.add_share(share, of_x)
            self._y.add_share(share, of_y)
            if self._squares is not None:
                self._squares.add(share, of_y)

    def weigh(self, scored: Scored) -> None:
        """Whether the unit's S weigh anything."""
        wx, wy = scored.objective.weights(scored.S)
        self._x_weights_nonzero |= bool(wx.any())
        self._y_weights_nonzero |= bool(wy.any())

    @property
    def found(self) -> Gradients:
        """So far."""
        return Gradients(self._x.total, self._y.total, self._x_weights_nonzero, self._y_weights_nonzero)


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
