"""Per-sequence parameter gradients of a layer from its input x and δ = ∂S/∂(its output).

n  sequences that are asked about; they do not mix, so a sequence's part of δ is ∂S/∂(its part of the output)
t  positions of a sequence, the product of all axes between the first and the last

A rule adds the gradient of some rows of a parameter for each of some sequences, [n, rows, ...], in float32
or wider, or sums of them with weights, to what other uses of it gave; `parts` tells the sequences apart
(`slots`). It answers for the layer's arithmetic only: that the parameter is used nowhere else is read off
autograd's graph (`tape`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F
from transformers.pytorch_utils import Conv1D

from probe_engine.model.unit_gradients.fused.slots import Parts
from probe_engine.vectors import wide


@dataclass(frozen=True)
class Asked:
    """Whose gradients are wanted, which part of them, and where."""

    parts: Parts
    """The sequences' of δ, and of tensors with its leading axes."""
    start: int
    """The first row, along the parameter's first axis."""
    total: Tensor
    """[n, rows, ...], to which they are added"""
    fresh: bool
    """Whether the total holds nothing yet, not even zeros."""
    weights: Sequence[Tensor] | None = None
    """By which each position's part of the gradient is multiplied, [1, t, 1] a part; None: by 1."""

    @property
    def rows(self) -> slice:
        """Of the parameter."""
        return slice(self.start, self.start + self.total.shape[1])

    def widened(self, tensor: Tensor, columns: slice = slice(None)) -> list[Tensor]:
        """Its parts, or some columns of them, in float32 or wider."""
        return [part[..., columns].to(wide(part.dtype)) for part in self.parts(tensor)]

    def weighted(self, parts: list[Tensor]) -> list[Tensor]:
        """Times the weights."""
        return parts if self.weights is None else [a * w for a, w in zip(parts, self.weights, strict=True)]

    def totals(self, parts: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Those of each of some parts, [n, t, ...]."""
        return torch.split(self.total, [len(part) for part in parts])

    def add_summed(self, parts: Sequence[Tensor]) -> None:
        """Parts [n, t, rows], summed over positions."""
        for total, part in zip(self.totals(parts), parts, strict=True):
            summed = part.sum(1)
            total.copy_(summed) if self.fresh else total.add_(summed)


@dataclass(frozen=True)
class LayerCall:
    """What one call of a layer was given, detached."""

    module: nn.Module
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]

    @classmethod
    def of(cls, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> LayerCall:
        """Shares the tensors' memory, not their graph."""
        return cls(module, tuple(map(_detached, args)), {k: _detached(v) for k, v in kwargs.items()})

    @property
    def input(self) -> Tensor | None:
        """The first tensor among the arguments."""
        return next((v for v in (*self.args, *self.kwargs.values()) if isinstance(v, Tensor)), None)


class Rule(Protocol):
    """One kind of layer."""

    def holds(self, call: LayerCall, output: Tensor) -> bool:
        """Whether this call, which gave `output`, is what the rule takes it for."""
        ...

    def add(self, call: LayerCall, delta: Tensor, name: str, asked: Asked) -> None:
        """∂S/∂(parameter `name`)[rows] of each sequence.

        Args:
            call: the layer's.
            delta: ∂S/∂output, of the output's shape.
            name: of the parameter within the layer.
            asked: of whom, which rows, and where to.
        """
        ...


@dataclass(frozen=True)
class Affine:
    """output = x Wᵀ + b (`nn.Linear`), or x W + b (`Conv1D`): ∇_W S = Σ_t δ xᵀ, ∇_b S = Σ_t δ."""

    transposed: bool

    def holds(self, call: LayerCall, output: Tensor) -> bool:
        """x has the output's leading axes."""
        x = call.input
        return x is not None and x.shape[:-1] == output.shape[:-1]

    def add(self, call: LayerCall, delta: Tensor, name: str, asked: Asked) -> None:
        """Σ_t δ xᵀ, or its transpose, or Σ_t δ."""
        if name == "bias":
            asked.add_summed(asked.weighted(asked.widened(delta, asked.rows)))
            return
        assert call.input is not None  # `holds` has seen it
        x, d = call.input, delta
        of_rows, other = (x, d) if self.transposed else (d, x)
        left, right = asked.widened(of_rows, asked.rows), asked.widened(other)
        if left[0].shape[-1] < right[0].shape[-1]:  # an adapter's rank is less than x, x than many rows
            left = asked.weighted(left)
        else:
            right = asked.weighted(right)
        for total, a, b in zip(asked.totals(left), left, right, strict=True):
            torch.baddbmm(total, a.mT, b, beta=0 if asked.fresh else 1, out=total)


class Scale:
    """output = a(x) ⊙ w + b, normalisations: ∇_w S = Σ_t δ ⊙ a.

    a is what the module itself gives at w = 1 less what it gives at w = 0, so that how it normalises, and
    whether it multiplies by w or by 1 + w, is its own affair.
    """

    def holds(self, call: LayerCall, output: Tensor) -> bool:
        """One number for each feature of the output."""
        return all(p.shape == output.shape[-1:] for p in call.module.parameters(recurse=False))

    def add(self, call: LayerCall, delta: Tensor, name: str, asked: Asked) -> None:
        """Σ_t δ ⊙ a, or Σ_t δ."""
        d = asked.weighted(asked.widened(delta, asked.rows))
        if name == "weight":
            d = [a * b for a, b in zip(d, asked.widened(_response(call), asked.rows), strict=True)]
        asked.add_summed(d)


class Lookup:
    """output = E[ids] · scale, embeddings: ∇_E S has Σ_{t: ids = i} scale · δ in its row i."""

    def holds(self, call: LayerCall, output: Tensor) -> bool:
        """A subclass may look up other ids than it is given (shifted positions): compare with its output."""
        ids, module = call.input, call.module
        assert isinstance(module, nn.Embedding)
        if ids is None or ids.is_floating_point() or output.shape[:-1] != ids.shape:
            return False
        if module.max_norm is not None or module.scale_grad_by_freq or module.sparse:
            return False
        plain = F.embedding(ids, module.weight.detach())
        return _is_plain(module) or torch.allclose(plain * _response(call), output)

    def add(self, call: LayerCall, delta: Tensor, name: str, asked: Asked) -> None:
        """δ of each token, added up in the row of its id; the padding token's row stays 0."""
        module, ids = call.module, call.input
        assert isinstance(module, nn.Embedding)
        assert ids is not None  # `holds` has seen it
        d = asked.weighted(asked.widened(delta))
        if not _is_plain(module):
            d = [a * b for a, b in zip(d, asked.widened(_response(call)), strict=True)]
        if asked.fresh:
            asked.total.zero_()
        for total, tokens, of_tokens in zip(asked.totals(d), asked.parts(ids[..., None]), d, strict=True):
            _add_rows(total, tokens.squeeze(-1), of_tokens, asked.start, module.padding_idx)


LINEAR, CONV1D, SCALE, LOOKUP = Affine(transposed=False), Affine(transposed=True), Scale(), Lookup()


def rule_for(module: nn.Module) -> Rule | None:
    """The rule for this layer; None where its class or its own `forward` may compute something else."""
    forward = type(module).forward
    if "forward" in vars(module):
        return None
    if forward is nn.Linear.forward:
        return LINEAR
    if forward is Conv1D.forward:
        return CONV1D
    if isinstance(module, nn.Embedding):
        return LOOKUP
    if isinstance(module, nn.LayerNorm) or type(module).__name__.endswith(("RMSNorm", "LayerNorm")):
        return SCALE if dict(module.named_parameters()).keys() <= {"weight", "bias"} else None
    return None


def _is_plain(module: nn.Embedding) -> bool:
    return type(module).forward is nn.Embedding.forward


def _detached(value: Any) -> Any:
    return value.detach() if isinstance(value, Tensor) else value


def _response(call: LayerCall) -> Tensor:
    """∂(output)/∂(weight) of a layer whose output is affine in its weight, elementwise."""
    weight = call.module.get_parameter("weight").detach()
    one, zero = (weight.new_tensor(v).expand(weight.shape) for v in (1.0, 0.0))
    with torch.no_grad():
        at_one, at_zero = (
            cast(Tensor, functional_call(call.module, {"weight": w}, call.args, dict(call.kwargs)))
            for w in (one, zero)
        )
    return at_one - at_zero


def _add_rows(total: Tensor, tokens: Tensor, d: Tensor, start: int, padding: int | None) -> None:
    """δ [n, t, d] to the rows, from `start` on, of their tokens [n, t]: [n, rows, d]."""
    n, size, _ = total.shape
    wanted = (tokens >= start) & (tokens < start + size)
    if padding is not None:
        wanted &= tokens != padding
    place = tokens - start + size * torch.arange(n, device=tokens.device)[:, None]
    total.view(n * size, -1).index_add_(0, place[wanted], d[wanted])
