"""Which module gives another output for the same input."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from probe_engine.model.module_calls import Call, tensors, watched_calls
from probe_engine.model.teacher_forcing import token_log_probs
from probe_engine.model.unit_gradients import UnitObjective


@dataclass(frozen=True)
class Noise:
    """The origin of a difference between two identical forwards."""

    name: str
    class_name: str


def first_noise(model: nn.Module, objective: UnitObjective) -> Noise | None:
    """Runs the forward twice; the first call with equal inputs and unequal output, None where all agree."""
    first, second = _fingerprints(model, objective), _fingerprints(model, objective)
    for (noise, given, made), (_, given_again, made_again) in zip(first, second, strict=False):
        if given == given_again and made != made_again:
            return noise
    return None


def _fingerprints(model: nn.Module, objective: UnitObjective) -> list[tuple[Noise, list[float], list[float]]]:
    seen: list[tuple[Noise, list[float], list[float]]] = []

    def finished(call: Call) -> None:
        noise = Noise(call.name, type(call.module).__name__)
        seen.append((noise, _sums((call.args, call.kwargs)), _sums(call.output)))

    with torch.no_grad(), watched_calls(model, finished):
        token_log_probs(model, objective.sequences[:2])
    return seen


def _sums(nested: object) -> list[float]:
    return [_sum(t) for t in tensors(nested)]


def _sum(tensor: Tensor) -> float:
    return float(tensor.detach().double().sum())
