"""Adam states by parameter name: what is common to optimizer files and live optimizers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeGuard

import torch
from torch import Tensor

from probe_engine.errors import ProbeError
from probe_engine.registry import ParameterRegistry
from probe_engine.sources.checkpoints.names import listed, shown
from probe_engine.types import AdamMoments, OptimizerState, Scalar, StepRule

LARGEST = 1e30
"""Of a learning rate, ε or weight decay: well beyond, torch raises instead of stepping float32 weights."""

_MARKS_OF_OTHERS = {
    "exp_avg_sq_row": "Adafactor",
    "exp_avg_sq_col": "Adafactor",
    "state1": "an 8-bit optimizer of bitsandbytes",
    "z": "a schedule-free optimizer",
    "momentum_buffer": "SGD with momentum, or Muon",
    "mu_product": "NAdam",
    "exp_inf": "Adamax",
    "square_avg": "RMSprop",
    "sum": "Adagrad",
    "acc_delta": "Adadelta",
}


@dataclass(frozen=True)
class AdamReading:
    """An optimizer's state, and all that was noticed on the way to it."""

    state: OptimizerState
    refusal: ProbeError | None = None
    """Why there are no moments at all: none saved (OPT001), not Adam's (OPT002), not these
    parameters' (OPT003, live OPT009), damaged (CKPT002), a pickle (CKPT007)."""
    invalid: tuple[str, ...] = ()
    """Parameters whose moments are negative or not finite; they are left out of the state."""
    stepless: tuple[str, ...] = ()
    """Parameters whose step is 0 or missing; they are left out of the state."""
    learning_rates: tuple[float, ...] = ()
    """Of the groups that hold parameters, without repetition."""
    strays: tuple[str, ...] = ()
    """Parameters of a live optimizer that the registry does not hold, by shape."""


@dataclass(frozen=True, slots=True)
class Hyperparameters:
    """What P and the step need besides the moments."""

    lr: float | None
    lr_origin: str
    betas: tuple[float, float]
    eps: float
    weight_decay: float

    @classmethod
    def of(
        cls,
        groups: Sequence[Mapping[str, Any]],
        origin: str,
        lr: float | None,
        trainer: Mapping[str, Scalar],
    ) -> Hyperparameters:
        """From `--lr`, else the optimizer's groups, else the trainer's arguments, else Adam's defaults.

        The group with the most parameters speaks for all; `weight_decay` is the largest of all groups.
        """
        main = max(groups, key=lambda group: len(group["params"]), default={})
        betas = main.get("betas")
        if not (isinstance(betas, list | tuple) and len(betas) == 2):
            betas = (trainer.get("adam_beta1"), trainer.get("adam_beta2"))
        rates = (
            (lr, "option"),
            (_number(main.get("lr")), origin),
            (_number(trainer.get("learning_rate")), "training_args.bin"),
        )
        rate, rate_origin = next(((value, name) for value, name in rates if value is not None), (None, ""))
        decays = [_number(group.get("weight_decay")) or 0.0 for group in groups]
        return cls(
            lr=rate,
            lr_origin=rate_origin,
            betas=(_first(betas[0], default=0.9, below=1), _first(betas[1], default=0.999, below=1)),
            eps=_first(main.get("eps"), trainer.get("adam_epsilon"), default=1e-8),
            weight_decay=max(decays, default=0.0),
        )

    def rule(self, group: Mapping[str, Any], class_name: str) -> StepRule | None:
        """What the optimizer does with the gradients of a group; None where no learning rate is known, or
        a number is so large that torch takes no step with it.

        `--lr` is every group's; what a group does not say is what speaks for all.
        """
        own = None if self.lr_origin == "option" else _number(group.get("lr"))
        lr = self.lr if own is None else own
        eps, weight_decay = (
            _first(group.get("eps"), default=self.eps),
            _first(group.get("weight_decay"), default=0.0),
        )
        if lr is None or max(lr, eps, weight_decay, lr * weight_decay) > LARGEST:
            return None
        betas = group.get("betas")
        if not (isinstance(betas, list | tuple) and len(betas) == 2):
            betas = self.betas
        return StepRule(
            lr=lr,
            betas=(
                _first(betas[0], default=self.betas[0], below=1),
                _first(betas[1], default=self.betas[1], below=1),
            ),
            eps=eps,
            weight_decay=weight_decay,
            decoupled=bool(group.get("decoupled_weight_decay", class_name != "Adam")),
            amsgrad=group.get("amsgrad") is True,
            maximize=group.get("maximize") is True,
        )


def reading_of(
    groups: Sequence[Mapping[str, Any]],
    members: Mapping[str, Mapping[str, Any]],
    states: Mapping[str, Mapping[str, Any]],
    hyperparameters: Hyperparameters,
    class_name: str,
    mapped_by: str,
) -> AdamReading:
    """Builds the state from per-parameter states that already have the right names and shapes.

    Args:
        groups: the optimizer's parameter groups.
        members: name to the group that holds it.
        states: name to what the optimizer keeps of that parameter.
        hyperparameters: of the optimizer.
        class_name: of the optimizer.
        mapped_by: how the names were found.
    """
    moments: dict[str, AdamMoments] = {}
    invalid, stepless = [], []
    # Some implementations (apex) keep one step for a whole group.
    group_step = next((s for g in groups if (s := _number(g.get("step"))) is not None), None)
    for name, kept in states.items():
        step = _number(kept.get("step"))
        step = group_step if step is None else step
        exp_avg, exp_avg_sq, largest = kept["exp_avg"], kept["exp_avg_sq"], kept.get("max_exp_avg_sq")
        squares = [exp_avg_sq] if largest is None else [exp_avg_sq, largest]
        if not all(map(_finite, [exp_avg, *squares])) or any(bool((v < 0).any()) for v in squares):
            invalid.append(name)
        elif step is None or step < 1:
            stepless.append(name)
        else:
            moments[name] = AdamMoments(exp_avg, exp_avg_sq, step, largest)
    state = empty_state(hyperparameters, class_name)
    # Of a parameter whose state is unusable the next step is unknown; one without a state starts from none.
    unknown = {*invalid, *stepless}
    rules = {
        name: rule
        for name, group in members.items()
        if name not in unknown
        and (rule := hyperparameters.rule(group, class_name)) is not None
        and not (rule.amsgrad and name in moments and moments[name].max_exp_avg_sq is None)
    }
    return AdamReading(
        state=replace(
            state,
            step=max((m.step for m in moments.values()), default=None),
            moments=moments,
            mapped_by=mapped_by,
            rules=rules,
        ),
        invalid=tuple(invalid),
        stepless=tuple(stepless),
        learning_rates=learning_rates(groups),
    )


def refused(
    refusal: ProbeError, hyperparameters: Hyperparameters, groups: Sequence[Mapping[str, Any]] = ()
) -> AdamReading:
    """A reading without moments: every parameter falls back to P = 1."""
    return AdamReading(empty_state(hyperparameters, ""), refusal, learning_rates=learning_rates(groups))


def empty_state(hyperparameters: Hyperparameters, class_name: str) -> OptimizerState:
    """A state without moments."""
    return OptimizerState(
        class_name=class_name,
        lr=hyperparameters.lr,
        lr_origin=hyperparameters.lr_origin,
        betas=hyperparameters.betas,
        eps=hyperparameters.eps,
        weight_decay=hyperparameters.weight_decay,
        step=None,
        moments={},
    )


def learning_rates(groups: Iterable[Mapping[str, Any]]) -> tuple[float, ...]:
    """Of the groups that hold parameters, without repetition, in order."""
    rates = [_number(group.get("lr")) for group in groups if group["params"]]
    return tuple(dict.fromkeys(rate for rate in rates if rate is not None))


def refuse_other_families(states: Iterable[Mapping[str, Any]], source: str) -> None:
    """Checks that the states are Adam's, by their keys.

    Raises:
        ProbeError: no state at all (OPT001), or another optimizer's (OPT002).
    """
    keys = {key for state in states for key in state if isinstance(key, str)}
    if not keys:
        raise ProbeError(
            f"{source}: expected Adam's moments, found no state: the optimizer has taken no "
            "step, or keeps none",
            "Take a training step first: before it Adam has no geometry.",
            code="OPT001",
            commands=("optimizer.step()",),
        )
    family = next((name for key, name in _MARKS_OF_OTHERS.items() if key in keys), "")
    if not family and not {"exp_avg", "exp_avg_sq"} <= keys:
        family = "Lion" if "exp_avg" in keys else "an optimizer that the probe does not know"
    if family:
        raise ProbeError(
            f"{source}: expected Adam's exp_avg and exp_avg_sq, found {shown(sorted(keys), 6)}: the state of "
            f"{family}. Nothing is substituted, so every parameter falls back to P = 1",
            code="OPT002",
            evidence={"keys": listed(sorted(keys)), "family": family},
        )


def misfits(states: Mapping[str, Mapping[str, Any]], registry: ParameterRegistry) -> list[str]:
    """The states that are not dense floating-point tensors of their parameter's shape."""
    shapes = {name: parameter.shape for name, parameter in registry}
    return [
        f"{name} {_shape(state.get('exp_avg_sq'))} for {list(shapes[name])}"
        for name, state in states.items()
        for moments in [
            (
                state.get("exp_avg"),
                state.get("exp_avg_sq"),
                state.get("max_exp_avg_sq", state.get("exp_avg_sq")),
            )
        ]
        if not all(_is_dense(tensor) and tensor.shape == shapes[name] for tensor in moments)
    ]


def _number(value: object) -> float | None:
    """A finite number of 0 or more, from a number or a tensor of one element; None for anything else."""
    if isinstance(value, Tensor) and value.numel() == 1 and not (value.is_meta or value.is_complex()):
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1e300:
        return None
    return float(value)


def _first(*values: object, default: float, below: float = math.inf) -> float:
    numbers = (_number(value) for value in values)
    return next((number for number in numbers if number is not None and number < below), default)


def _shape(value: object) -> str:
    return str(list(value.shape)) if isinstance(value, Tensor) else type(value).__name__


def _is_dense(value: object) -> TypeGuard[Tensor]:
    return (
        isinstance(value, Tensor)
        and value.layout == torch.strided
        and value.is_floating_point()
        and not value.is_meta
    )


def _finite(tensor: Tensor) -> bool:
    return bool(torch.isfinite(tensor).all())
