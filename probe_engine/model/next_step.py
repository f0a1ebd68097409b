"""The optimizer's own next step on a batch, and what it is made of (method.md §6)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from probe_engine.registry import ParameterRegistry
from probe_engine.types import AdamMoments, OptimizerState, StepRule
from probe_engine.vectors import LazyTensors, ParameterVector, Share, wide

PIECE = 2**18
"""Numbers that are stepped at a time: what Adam needs beside them stays in a core's cache."""
CLIP_EPS = 1e-6
"""`torch.nn.utils.clip_grad_norm_` adds it to the norm."""


@dataclass(frozen=True)
class StepParts:
    """X·Δθ, split: what each part of the step does to what X is the gradient of. The parts add up."""

    gradient: float
    """η(1−β₁)/bc₁·D·Ȳ"""
    clipping: float
    """η(1−β₁)/bc₁·D·(Ȳ_clipped − Ȳ)"""
    momentum: float
    """−ηβ₁/bc₁·D·m"""
    weight_decay: float
    """−η·wd·θ; Adam's, which passes through the moments: −η(1−β₁)/bc₁·D·wd·θ"""

    @property
    def total(self) -> float:
        """X·Δθ."""
        return self.gradient + self.clipping + self.momentum + self.weight_decay


@dataclass(frozen=True)
class NextStep:
    """θ → θ⁺ by the optimizer itself, in float32 or wider: torch's own code on copies of the weights.

    Its vectors are lazy and made from the weights as they are: ask while θ is θ.
    """

    registry: ParameterRegistry
    state: OptimizerState
    mean_y: ParameterVector
    """Ȳ, the ascent direction."""
    limit: float
    """What ‖Ȳ‖ is clipped to; inf: no clipping."""
    total_norm: Tensor
    """‖Ȳ‖ as the optimizer's loop measures it, a scalar."""

    @property
    def norm(self) -> float:
        """‖Ȳ‖"""
        return float(self.total_norm)

    @cached_property
    def clip(self) -> float:
        """What clipping multiplies Ȳ by, at most 1."""
        return min(1.0, self.limit / (self.norm + CLIP_EPS))

    @property
    def landing(self) -> ParameterVector:
        """θ⁺"""
        return self.mean_y.made(self._landed)

    @property
    def delta(self) -> ParameterVector:
        """Δθ = θ⁺ − θ."""
        parameters = self.registry.parameters
        return self.mean_y.made(
            lambda share: self._landed(share) - share.of(parameters[share.parameter].detach())
        )

    def parts(self, x: ParameterVector) -> StepParts:
        """X·Δθ by parts, in float64; they add up to the whole but for rounding."""
        totals = [0.0, 0.0, 0.0, 0.0]
        for share in x.over(self.registry.ids).shares:
            direction = x.share(share)
            if direction is None:
                continue
            rule = self.state.rules[self.registry.names[share.parameter]]
            for at, ours in self._pieces(share, torch.float64):
                d = direction.flatten()[at].double()
                weighted = d * ours.scale
                decay = (
                    rule.lr * rule.weight_decay * (d * ours.theta)
                    if rule.decoupled
                    else (1 - rule.betas[0]) * rule.weight_decay * weighted * ours.theta
                )
                gradient = (1 - rule.betas[0]) * float((weighted * ours.y).sum())
                totals[0] += gradient
                totals[1] += (self.clip - 1) * gradient
                totals[2] -= rule.betas[0] * float((weighted * ours.m).sum())
                totals[3] -= float(decay.sum())
        return StepParts(*totals)

    def sensitivity(self, x: ParameterVector) -> ParameterVector:
        """∂(X·Δθ)/∂Ȳ, [P]: how the prediction moves with the batch's own gradient, clipping included.

        The step is not linear in Ȳ: it is under the root as well. To first order a unit's share is this
        times its Y, which gives the standard error that the units of U bring (as t_m does in (12)).
        """

        def along(share: Share) -> Tensor | None:
            direction = x.share(share)
            slope = None if direction is None else self._slopes.make(share)
            return None if direction is None or slope is None else direction * slope

        slopes = x.over(self.registry.ids).made(along)
        if self.clip == 1:
            return slopes
        # The factor itself falls as Ȳ grows.
        falling = self.clip * slopes.dot(self.mean_y) / (self.norm * (self.norm + CLIP_EPS))
        return slopes.scaled(self.clip).plus(self.mean_y, -falling)

    @cached_property
    def _slopes(self) -> LazyTensors:
        """∂Δθ/∂(clipped Ȳ), coordinate by coordinate; None where nothing is stepped."""

        def made(share: Share) -> Tensor | None:
            rows = share.of(self.registry.parameters[share.parameter])
            pieces = [ours.slope for _, ours in self._pieces(share, wide(rows.dtype))]
            return torch.cat(pieces).view_as(rows) if pieces else None

        return LazyTensors(lru_cache(maxsize=1)(made), self.registry.parameters)

    def _landed(self, share: Share) -> Tensor:
        """A share of θ⁺, not to be written into."""
        together = map(Share, self._together[share.parameter]) if share.whole else [share]
        return self._landed_together(tuple(together))[share.parameter]

    @cached_property
    def _together(self) -> list[range]:
        """For each parameter, those beside it that one optimizer steps: an adapter's are small and many."""
        parameters, numel = self.registry.parameters, 0
        rules = [self.state.rules[name] for name in self.registry.names]
        starts = [0]
        for index, parameter in enumerate(parameters):
            numel += parameter.numel()
            if index and (numel > PIECE or rules[index] != rules[starts[-1]]):
                starts.append(index)
                numel = parameter.numel()
        return [range(*ends) for ends in pairwise([*starts, len(parameters)]) for _ in range(*ends)]

    @cached_property
    def _landed_together(self) -> Callable[[tuple[Share, ...]], dict[int, Tensor]]:
        return lru_cache(maxsize=1)(self._stepped)

    def _stepped(self, together: tuple[Share, ...]) -> dict[int, Tensor]:
        """These shares of θ⁺, one of a parameter, by the parameter's index; new tensors."""
        landings: dict[int, Tensor] = {}
        pieces: list[tuple[nn.Parameter, AdamMoments | None]] = []
        rule = self.state.rules[self.registry.names[together[0].parameter]]
        for share in together:
            rows, y = share.of(self.registry.parameters[share.parameter].detach()), self.mean_y.share(share)
            dtype = wide(rows.dtype)
            landing = rows.to(dtype, copy=True, memory_format=torch.contiguous_format)
            landings[share.parameter] = landing
            if y is None:
                continue
            gradient, moments = y.flatten(), self._moments(share)
            for at in _pieces_of(rows):
                piece = nn.Parameter(landing.view(-1)[at])
                piece.grad = gradient[at].to(dtype) * (1.0 if rule.maximize else -1.0)
                pieces.append((piece, _piece(moments, at)))
                if landing.numel() > PIECE:  # what Adam needs beside it stays small
                    self._take(pieces, rule)
                    pieces = []
        self._take(pieces, rule)
        return landings

    def _take(self, pieces: Sequence[tuple[nn.Parameter, AdamMoments | None]], rule: StepRule) -> None:
        if pieces:
            clip_grads_with_norm_([piece for piece, _ in pieces], self.limit, self.total_norm)
            _step(pieces, rule)

    def _moments(self, share: Share) -> AdamMoments | None:
        moments = self.state.moments.get(self.registry.names[share.parameter])
        return None if moments is None else _cut(moments, share.of)

    def _pieces(self, share: Share, dtype: torch.dtype) -> Iterator[tuple[slice, _Coordinates]]:
        """A share of a parameter's step, by pieces; nothing where it is not stepped."""
        y = self.mean_y.share(share)
        if y is None:
            return
        theta, gradient = share.of(self.registry.parameters[share.parameter].detach()).flatten(), y.flatten()
        rule, moments = self.state.rules[self.registry.names[share.parameter]], self._moments(share)
        for at in _pieces_of(theta):
            yield (
                at,
                _Coordinates.of(
                    theta[at].to(dtype), gradient[at].to(dtype), self.clip, rule, _piece(moments, at)
                ),
            )


def next_step(
    registry: ParameterRegistry,
    state: OptimizerState,
    mean_y: ParameterVector,
    max_grad_norm: float | None,
) -> NextStep:
    """What the optimizer does next with the gradient −Ȳ.

    Args:
        registry: the trainable parameters; they stay as they are.
        state: moments and rules of each; a parameter without moments starts from none, as in torch.
        mean_y: Ȳ, the ascent direction, [P]; a parameter whose entry is None is not stepped.
        max_grad_norm: clips ‖Ȳ‖ before Adam sees it; None or 0: no clipping.

    Raises:
        ValueError: a parameter has no rule, or Ȳ is over other parameter objects.
    """
    if lacking := [name for name in registry.names if name not in state.rules]:
        raise ValueError(f"the optimizer holds no group for {lacking[0]}")
    norms = [
        get_total_norm([y.to(wide(p.dtype))])
        for p, y in zip(registry.parameters, mean_y.over(registry.ids).tensors, strict=True)
        if y is not None
    ]
    return NextStep(registry, state, mean_y, max_grad_norm or float("inf"), get_total_norm(norms))


def _pieces_of(tensor: Tensor) -> Iterator[slice]:
    """Where to cut it, flattened: Adam's temporaries are several times what it is given."""
    return (slice(first, first + PIECE) for first in range(0, tensor.numel(), PIECE))


def _piece(moments: AdamMoments | None, at: slice) -> AdamMoments | None:
    return None if moments is None else _cut(moments, lambda tensor: tensor.flatten()[at])


def _cut(moments: AdamMoments, part: Callable[[Tensor], Tensor]) -> AdamMoments:
    largest = moments.max_exp_avg_sq
    return replace(
        moments,
        exp_avg=part(moments.exp_avg),
        exp_avg_sq=part(moments.exp_avg_sq),
        max_exp_avg_sq=None if largest is None else part(largest),
    )


def _step(pieces: Sequence[tuple[nn.Parameter, AdamMoments | None]], rule: StepRule) -> None:
    """One `step()` of torch.optim's Adam or AdamW."""
    kind = torch.optim.AdamW if rule.decoupled else torch.optim.Adam
    optimizer = kind(
        [piece for piece, _ in pieces],
        # torch takes no number beyond the weights' own; the step overflows all the same.
        lr=min(rule.lr, *(torch.finfo(piece.dtype).max for piece, _ in pieces)),
        betas=rule.betas,
        eps=rule.eps,
        weight_decay=rule.weight_decay,
        amsgrad=rule.amsgrad,
        maximize=rule.maximize,
        foreach=True,
    )
    for piece, moments in pieces:
        if moments is not None:
            optimizer.state[piece] = _torch_state(piece, moments)
    optimizer.step()


def _torch_state(parameter: nn.Parameter, moments: AdamMoments) -> dict[str, Tensor]:
    def copied(tensor: Tensor) -> Tensor:
        return tensor.to(parameter.device, parameter.dtype, copy=True)

    kept = {
        "step": torch.tensor(float(moments.step)),
        "exp_avg": copied(moments.exp_avg),
        "exp_avg_sq": copied(moments.exp_avg_sq),
    }
    if moments.max_exp_avg_sq is not None:
        kept["max_exp_avg_sq"] = copied(moments.max_exp_avg_sq)
    return kept


@dataclass(frozen=True)
class _Coordinates:
    """The step of a piece of a parameter, coordinate by coordinate."""

    theta: Tensor
    y: Tensor
    m: Tensor
    """Adam's running mean in the direction of descent, so that the step is against it."""
    scale: Tensor
    """η·D/bc₁"""
    slope: Tensor
    """∂Δθ/∂(clipped Ȳ)"""

    @classmethod
    def of(
        cls, theta: Tensor, y: Tensor, clip: float, rule: StepRule, moments: AdamMoments | None
    ) -> _Coordinates:
        """In the dtype of θ and Ȳ."""
        beta1, beta2 = rule.betas
        zeros = torch.zeros_like(theta)
        m, v, largest = zeros, zeros, zeros
        step = 1.0
        if moments is not None:
            m, v, step = moments.exp_avg.to(theta), moments.exp_avg_sq.to(theta), moments.step + 1
            if moments.max_exp_avg_sq is not None:
                largest = moments.max_exp_avg_sq.to(theta)
        g = -clip * y
        if not rule.decoupled:
            # torch turns the gradient over for `maximize` before it adds the decay.
            g = g + rule.weight_decay * theta
        m_next = beta1 * m + (1 - beta1) * g
        v_next = beta2 * v + (1 - beta2) * g.square()
        under_root = torch.maximum(largest, v_next) if rule.amsgrad else v_next
        bias1, bias2 = 1 - beta1**step, 1 - beta2**step
        root = (under_root / bias2).sqrt()
        d = 1 / (root + rule.eps)
        scale = rule.lr * d / bias1
        # d root/d g; 0 where AMSGrad's maximum is an older one, and at 0/0.
        moved = (v_next >= largest) if rule.amsgrad else torch.ones_like(root, dtype=torch.bool)
        bend = torch.where(moved & (root > 0), (1 - beta2) * g / (bias2 * root), zeros)
        # Δθ = −scale·m⁺, and g = −clipped Ȳ + …: two signs that cancel in the first term.
        slope = scale * ((1 - beta1) - m_next * d * bend)
        return cls(theta, y, m, scale, slope)
