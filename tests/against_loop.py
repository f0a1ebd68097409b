"""`fused` beside `loop`: models, units, and how far apart what they give is."""

from __future__ import annotations

import tiny
import torch
from torch import nn

from probe_engine.model.unit_gradients import Fused, Loop, objectives
from probe_engine.model.unit_gradients.received import UnitVectors
from probe_engine.registry import ParameterRegistry
from probe_engine.vectors import ParameterVector

FAMILIES = ("llama", "gpt2", "qwen2", "gemma", "phi", "mixtral", "opt", "gpt_neox")
ADAPTATIONS = {
    "full": None,
    "lora": {},
    "dora": {"use_dora": True},
    "modules_to_save": {"modules_to_save": ["lm_head", "embed_tokens", "wte", "embed_in"]},
}
UNITS = objectives(tiny.batch(sizes=(3, 2, 4), weighting="per_token"))
CONSTANT_LAMBDA = objectives(tiny.batch(sizes=(3, 2, 4)))
"""As X of (2b) needs it."""


def build(
    family: str, adaptation: str, *, tied: bool = True, dtype: torch.dtype = torch.float32
) -> nn.Module:
    base = tiny.model(family, tie_word_embeddings=tied)
    for name, parameter in base.named_parameters():
        if parameter.dim() == 1:  # biases of 0 and norms of 1 would hide mistakes
            parameter.data.add_(
                0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(len(name)))
            )
    changes = ADAPTATIONS[adaptation]
    if changes is not None:
        base = tiny.with_lora(base, target_modules="all-linear", **changes)
    return tiny.cast(base, dtype).eval()


def trained(model: nn.Module) -> ParameterRegistry:
    return ParameterRegistry.of(model).trainable


def vectors(method, units=UNITS, *, rao_blackwell: bool = False) -> list[tuple[ParameterVector, ...]]:
    """X and Y of each unit, and X of (2b)."""
    received = UnitVectors(method.registry)
    scored = list(method.measurements(units, received, rao_blackwell=rao_blackwell))
    assert [s.objective for s in scored] == list(units)
    third = [received.rao_blackwell] if rao_blackwell else []
    return [(*received.of(number), *(of(number) for of in third)) for number in range(len(units))]


def error(ours, theirs) -> float:
    """Largest error in norm over the largest unit, of X and of Y (and of X of (2b)); a gradient that no unit
    has on one side no unit has on the other."""
    found = []
    for kind in range(len(theirs[0])):
        mine, reference = ([unit[kind] for unit in side] for side in (ours, theirs))
        assert reached(mine) == reached(reference)
        largest = max(v.norm() for v in reference)
        found += [difference(a, b) / largest for a, b in zip(mine, reference, strict=True)]
    return max(found)


def reached(of_units: list[ParameterVector]) -> list[bool]:
    return [
        any(t is not None for t in tensors) for tensors in zip(*(v.tensors for v in of_units), strict=True)
    ]


def difference(a: ParameterVector, b: ParameterVector) -> float:
    """‖a − b‖, None for 0."""
    pairs = zip(a.tensors, b.tensors, strict=True)
    present = [
        (0.0 if s is None else s) - (0.0 if t is None else t)
        for s, t in pairs
        if not (s is None and t is None)
    ]
    return sum(float(d.double().square().sum()) for d in present) ** 0.5


def against_loop(
    model: nn.Module, *, micro_batch: int = 8, units=UNITS, rao_blackwell: bool = False
) -> tuple[float, Fused]:
    fused, loop = Fused(model, trained(model), micro_batch), Loop(model, trained(model), 100)
    ours, theirs = (vectors(method, units, rao_blackwell=rao_blackwell) for method in (fused, loop))
    return error(ours, theirs), fused
