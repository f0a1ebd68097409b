"""The optimizer's own next step on a batch, and what it is made of (method.md §6)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from probe_engine.registry import ParameterRegistry, ParameterVector, wide
from probe_engine.types import AdamMoments, OptimizerState, StepRule

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
    """θ → θ⁺ by the optimizer itself, in float32 or wider."""

    registry: ParameterRegistry
    state: OptimizerState
    mean_y: ParameterVector
    """Ȳ, the ascent direction."""
    clip: float
    """What clipping multiplies Ȳ by, at most 1."""
    norm: float
    """‖Ȳ‖ as the optimizer's loop measures it."""
    landing: ParameterVector
    """θ⁺"""

    @property
    def delta(self) -> ParameterVector:
        """Δθ = θ⁺ − θ."""
        return ParameterVector(
            self.landing.ids,
            tuple(
                None if new is None else new - old.detach().to(new.dtype)
                for new, old in zip(self.landing.tensors, self.registry.parameters, strict=True)
            ),
        )

    def parts(self, x: ParameterVector) -> StepParts:
        """X·Δθ by parts; they add up to the whole but for rounding."""
        totals = [0.0, 0.0, 0.0, 0.0]
        for name, parameter, y, direction in self._each(x):
            rule, moments = self.state.rules[name], self.state.moments.get(name)
            ours = _Coordinates.of(parameter, y, self.clip, rule, moments)
            weighted = direction.double() * ours.scale
            decay = (
                rule.lr * rule.weight_decay * (direction.double() * ours.theta)
                if rule.decoupled
                else (1 - rule.betas[0]) * rule.weight_decay * weighted * ours.theta
            )
            totals[0] += (1 - rule.betas[0]) * float((weighted * y.double()).sum())
            totals[1] += (1 - rule.betas[0]) * (self.clip - 1) * float((weighted * y.double()).sum())
            totals[2] -= rule.betas[0] * float((weighted * ours.m).sum())
            totals[3] -= float(decay.sum())
        return StepParts(*totals)

    def sensitivity(self, x: ParameterVector) -> ParameterVector:
        """∂(X·Δθ)/∂Ȳ, [P]: how the prediction moves with the batch's own gradient, clipping included.

        The step is not linear in Ȳ: it is under the root as well. To first order a unit's share is this
        times its Y, which gives the standard error that the units of U bring (as t_m does in (12)).
        """
        slopes: dict[str, Tensor] = {}
        along_y = 0.0
        for name, parameter, y, direction in self._each(x):
            rule, moments = self.state.rules[name], self.state.moments.get(name)
            ours = _Coordinates.of(parameter, y, self.clip, rule, moments)
            slope = direction.double() * ours.slope
            along_y += float((slope * y.double()).sum())
            slopes[name] = (self.clip * slope).to(y.dtype)
        w = ParameterVector(self.mean_y.ids, tuple(slopes.get(name) for name in self.registry.names))
        if self.clip < 1:  # the factor itself falls as Ȳ grows
            w.add_(self.mean_y, -self.clip * along_y / (self.norm * (self.norm + CLIP_EPS)))
        return w

    def _each(self, x: ParameterVector) -> list[tuple[str, nn.Parameter, Tensor, Tensor]]:
        if x.ids != self.registry.ids:
            raise ValueError("vectors over different parameter objects: was the model re-wrapped?")
        rows = zip(self.registry, self.mean_y.tensors, x.tensors, strict=True)
        return [(name, p, y, d) for (name, p), y, d in rows if y is not None and d is not None]


def next_step(
    registry: ParameterRegistry,
    state: OptimizerState,
    mean_y: ParameterVector,
    max_grad_norm: float | None,
) -> NextStep:
    """What the optimizer does next with the gradient −Ȳ: torch's own code on copies of the weights.

    Args:
        registry: the trainable parameters; they stay as they are.
        state: moments and rules of each; a parameter without moments starts from none, as in torch.
        mean_y: Ȳ, the ascent direction, [P]; a parameter whose entry is None is not stepped.
        max_grad_norm: clips ‖Ȳ‖ before Adam sees it; None or 0: no clipping.

    Raises:
        ValueError: a parameter has no rule, or Ȳ is over other parameter objects.
    """
    if registry.ids != mean_y.ids:
        raise ValueError("the gradient is over different parameter objects: was the model re-wrapped?")
    if lacking := [name for name in registry.names if name not in state.rules]:
        raise ValueError(f"the optimizer holds no group for {lacking[0]}")
    gradients = [
        None if y is None else y.to(wide(p.dtype))
        for p, y in zip(registry.parameters, mean_y.tensors, strict=True)
    ]
    norm = get_total_norm([g for g in gradients if g is not None])
    limit = max_grad_norm or float("inf")
    landing: list[Tensor] = []
    # One parameter after the other: Adam's temporaries are several times what it is given.
    for (name, parameter), gradient in zip(registry, gradients, strict=True):
        rule = state.rules[name]
        copied = nn.Parameter(parameter.detach().to(wide(parameter.dtype), copy=True))
        if gradient is not None:
            copied.grad = gradient * (1.0 if rule.maximize else -1.0)
            clip_grads_with_norm_([copied], limit, norm)
        _step(copied, rule, state.moments.get(name))
        landing.append(copied.detach())
    return NextStep(
        registry=registry,
        state=state,
        mean_y=mean_y,
        clip=min(1.0, limit / (float(norm) + CLIP_EPS)),
        norm=float(norm),
        landing=ParameterVector(registry.ids, tuple(landing)),
    )


def _step(parameter: nn.Parameter, rule: StepRule, moments: AdamMoments | None) -> None:
    """One `step()` of torch.optim's Adam or AdamW."""
    kind = torch.optim.AdamW if rule.decoupled else torch.optim.Adam
    optimizer = kind(
        [parameter],
        # torch takes no number beyond the weights' own; the step overflows all the same.
        lr=min(rule.lr, torch.finfo(parameter.dtype).max),
        betas=rule.betas,
        eps=rule.eps,
        weight_decay=rule.weight_decay,
        amsgrad=rule.amsgrad,
        maximize=rule.maximize,
        foreach=True,
    )
    if moments is not None:
        optimizer.state[parameter] = _torch_state(parameter, moments)
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
    """One parameter's step, coordinate by coordinate, in float64."""

    theta: Tensor
    m: Tensor
    """Adam's running mean in the direction of descent, so that the step is against it."""
    scale: Tensor
    """η·D/bc₁"""
    slope: Tensor
    """∂Δθ/∂(clipped Ȳ)"""

    @classmethod
    def of(
        cls, parameter: nn.Parameter, y: Tensor, clip: float, rule: StepRule, moments: AdamMoments | None
    ) -> _Coordinates:
        beta1, beta2 = rule.betas
        theta = parameter.detach().double()
        zeros = torch.zeros_like(theta)

        def held(tensor: Tensor) -> Tensor:
            return tensor.to(theta.device).double()

        m, v, largest = zeros, zeros, zeros
        step = 1.0
        if moments is not None:
            m, v, step = held(moments.exp_avg), held(moments.exp_avg_sq), moments.step + 1
            if moments.max_exp_avg_sq is not None:
                largest = held(moments.max_exp_avg_sq)
        g = -clip * y.double()
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
        return cls(theta, m, scale, slope)
