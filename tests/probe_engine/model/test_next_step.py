"""The optimizer's next step against torch's own, its parts and its sensitivity against differences."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import tiny
import torch
from torch import nn

from probe_engine.model import next_step as module
from probe_engine.model.next_step import NextStep, next_step
from probe_engine.registry import ParameterRegistry
from probe_engine.types import AdamMoments, OptimizerState, StepRule
from probe_engine.vectors import ParameterVector

CLIPPED, FREE = 0.05, 1e9


def vector(registry: ParameterRegistry, seed: int, scale: float = 1.0) -> ParameterVector:
    generator = torch.Generator().manual_seed(seed)
    return ParameterVector(
        registry.ids,
        tuple(scale * torch.randn(p.shape, generator=generator).to(p.dtype) for p in registry.parameters),
    )


def trained(model: nn.Module, kind: type[Any], steps: int = 3, **options: Any) -> Any:
    """An optimizer with two groups after some steps on random gradients."""
    registry = ParameterRegistry.of(model).trainable
    half = len(registry) // 2
    optimizer = kind(
        [
            {"params": list(registry.parameters[:half]), "weight_decay": 0.1},
            {"params": list(registry.parameters[half:]), "weight_decay": 0.0, "lr": 2e-3},
        ],
        lr=1e-3,
        **options,
    )
    for seed in range(steps):
        for p, g in zip(registry.parameters, vector(registry, seed, 0.1).tensors, strict=True):
            p.grad = g
        optimizer.step()
    optimizer.zero_grad()
    return optimizer


def state_of(optimizer: Any, registry: ParameterRegistry) -> OptimizerState:
    moments, rules = {}, {}
    for group in optimizer.param_groups:
        for p in group["params"]:
            name = registry.name_of(p)
            assert name is not None
            rules[name] = StepRule(
                lr=group["lr"],
                betas=group["betas"],
                eps=group["eps"],
                weight_decay=group["weight_decay"],
                decoupled=isinstance(optimizer, torch.optim.AdamW),
                amsgrad=group["amsgrad"],
                maximize=group["maximize"],
            )
            if kept := optimizer.state.get(p):
                moments[name] = AdamMoments(
                    kept["exp_avg"].clone(),
                    kept["exp_avg_sq"].clone(),
                    float(kept["step"]),
                    kept["max_exp_avg_sq"].clone() if group["amsgrad"] else None,
                )
    return OptimizerState("", 1e-3, "", (0.9, 0.999), 1e-8, 0.1, 3, moments, rules=rules)


def true_step(optimizer: Any, y: ParameterVector, registry: ParameterRegistry, limit: float) -> list[Any]:
    """θ⁺ of the very optimizer, by the trainer's own two lines."""
    for p, g in zip(registry.parameters, y.tensors, strict=True):
        p.grad = (g if optimizer.param_groups[0]["maximize"] else -g).clone()
    torch.nn.utils.clip_grad_norm_(registry.parameters, limit)
    optimizer.step()
    return [p.detach().clone() for p in registry.parameters]


KINDS: dict[str, tuple[type[Any], dict[str, Any]]] = {
    "AdamW": (torch.optim.AdamW, {}),
    "AdamW, amsgrad": (torch.optim.AdamW, {"amsgrad": True}),
    "AdamW, maximize": (torch.optim.AdamW, {"maximize": True}),
    "Adam": (torch.optim.Adam, {}),
    "Adam, amsgrad, maximize": (torch.optim.Adam, {"amsgrad": True, "maximize": True}),
}


def prepared(kind: str, *, lora: bool = True, limit: float = CLIPPED, **how: Any) -> tuple[Any, ...]:
    base = tiny.model("llama")
    model = tiny.with_lora(base) if lora else base
    registry = ParameterRegistry.of(model).trainable
    optimizer = trained(model, KINDS[kind][0], **KINDS[kind][1], **how)
    state = state_of(optimizer, registry)
    y = vector(registry, 9, 0.1)
    return optimizer, registry, state, y, next_step(registry, state, y, limit)


@pytest.mark.parametrize("limit", [CLIPPED, FREE], ids=["clipped", "free"])
@pytest.mark.parametrize("lora", [True, False], ids=["lora", "full"])
@pytest.mark.parametrize("kind", KINDS)
def test_it_is_torchs_own_step_bit_for_bit(kind: str, lora: bool, limit: float) -> None:
    optimizer, registry, _, y, ours = prepared(kind, lora=lora, limit=limit, foreach=True)
    before, landing = [p.detach().clone() for p in registry.parameters], list(ours.landing.tensors)
    assert (ours.clip < 1) == (limit == CLIPPED)
    truth = true_step(optimizer, y, registry, limit)
    for mine, theirs, old in zip(landing, truth, before, strict=True):
        assert torch.equal(mine, theirs)
        assert not torch.equal(mine, old)


def test_the_fused_kernel_takes_the_same_step_to_rounding() -> None:
    optimizer, registry, _, y, ours = prepared("AdamW", fused=True)
    delta = ParameterVector(registry.ids, list(ours.delta.tensors))
    before = [p.detach().clone() for p in registry.parameters]
    truth = true_step(optimizer, y, registry, CLIPPED)
    true_delta = ParameterVector(
        registry.ids, tuple(new - old for new, old in zip(truth, before, strict=True))
    )
    difference = delta.plus(true_delta, -1.0)
    # Δθ is a difference of weights: its own rounding is that of θ.
    assert difference.norm() <= 1e-6 * vector_norm(before)
    assert difference.norm() <= 2e-3 * delta.norm()


def vector_norm(tensors: list[torch.Tensor]) -> float:
    return float(sum(float(t.double().square().sum()) for t in tensors) ** 0.5)


@pytest.mark.parametrize("limit", [CLIPPED, FREE], ids=["clipped", "free"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_parts_add_up_to_the_whole(kind: str, limit: float) -> None:
    model = tiny.with_lora(tiny.model("llama", dtype=torch.float64)).double()
    registry = ParameterRegistry.of(model).trainable
    state = state_of(trained(model, KINDS[kind][0], **KINDS[kind][1]), registry)
    ours = next_step(registry, state, vector(registry, 9, 0.1), limit)
    x = vector(registry, 5)
    parts = ours.parts(x)
    assert parts.total == pytest.approx(x.dot(ours.delta), rel=1e-6)
    assert (parts.clipping != 0) == (limit == CLIPPED)
    for part in (parts.gradient, parts.momentum, parts.weight_decay):
        assert abs(part) > 1e-6 * abs(parts.total)


def test_a_part_alone_is_the_step_of_an_optimizer_that_has_nothing_else() -> None:
    """Without momentum, clipping and decay the whole is the gradient's part; one by one for the others."""
    model = tiny.with_lora(tiny.model("llama", dtype=torch.float64)).double()
    registry = ParameterRegistry.of(model).trainable
    state = state_of(trained(model, torch.optim.AdamW), registry)
    x, y = vector(registry, 5), vector(registry, 9, 0.1)
    zero = {n: replace(m, exp_avg=torch.zeros_like(m.exp_avg)) for n, m in state.moments.items()}
    bare = replace(
        state, moments=zero, rules={n: replace(r, weight_decay=0.0) for n, r in state.rules.items()}
    )
    alone = next_step(registry, bare, y, None)
    assert alone.parts(x).gradient == pytest.approx(x.dot(alone.delta), rel=1e-6)
    whole = next_step(registry, state, y, None)
    assert whole.parts(x).gradient == pytest.approx(alone.parts(x).gradient, rel=1e-9)
    decayless = replace(state, rules=bare.rules)
    without = x.dot(next_step(registry, decayless, y, None).delta)
    assert whole.parts(x).weight_decay == pytest.approx(x.dot(whole.delta) - without, rel=1e-5)


@pytest.mark.parametrize("limit", [CLIPPED, FREE], ids=["clipped", "free"])
@pytest.mark.parametrize("kind", ["AdamW", "AdamW, amsgrad", "Adam"])
def test_the_sensitivity_is_the_derivative_of_the_prediction(kind: str, limit: float) -> None:
    model = tiny.with_lora(tiny.model("llama", dtype=torch.float64)).double()
    registry = ParameterRegistry.of(model).trainable
    state = state_of(trained(model, KINDS[kind][0], **KINDS[kind][1]), registry)
    x, y, towards = vector(registry, 5), vector(registry, 9, 0.1), vector(registry, 6, 0.1)
    ours = next_step(registry, state, y, limit)

    def predicted(amount: float) -> float:
        step = next_step(registry, state, y.plus(towards, amount), limit)
        return step.parts(x).total

    difference = (predicted(1e-5) - predicted(-1e-5)) / 2e-5
    assert ours.sensitivity(x).dot(towards) == pytest.approx(difference, rel=1e-5)


def test_what_has_no_gradient_is_not_stepped_and_what_has_no_state_starts_from_none() -> None:
    model = tiny.with_lora(tiny.model("llama"))
    registry = ParameterRegistry.of(model).trainable
    optimizer = trained(model, torch.optim.AdamW, foreach=True)
    still, fresh = registry.parameters[0], registry.parameters[1]
    del optimizer.state[fresh]
    state = state_of(optimizer, registry)
    assert registry.names[1] not in state.moments
    y = vector(registry, 9, 0.1)
    y = ParameterVector(y.ids, (None, *y.tensors[1:]))
    ours: NextStep = next_step(registry, state, y, None)
    for p, g in zip(registry.parameters, y.tensors, strict=True):
        p.grad = None if g is None else -g
    before, landing = still.detach().clone(), list(ours.landing.tensors)
    optimizer.step()
    assert torch.equal(still, before)
    for mine, p in zip(landing, registry.parameters, strict=True):
        assert mine is not None
        assert torch.equal(mine, p.detach())


def test_nothing_of_the_callers_changes() -> None:
    optimizer, registry, state, y, _ = prepared("AdamW")
    kept = [p.detach().clone() for p in registry.parameters]
    moments = {name: m.exp_avg.clone() for name, m in state.moments.items()}
    next_step(registry, state, y, CLIPPED)
    assert all(torch.equal(a, b) for a, b in zip(kept, registry.parameters, strict=True))
    assert all(torch.equal(moments[name], m.exp_avg) for name, m in state.moments.items())
    assert all(p.grad is None for p in registry.parameters)
    assert optimizer.state[registry.parameters[0]]["step"] == 3


def test_bf16_weights_are_stepped_in_float32() -> None:
    model = tiny.with_lora(tiny.model("llama"))
    registry = ParameterRegistry.of(model).trainable
    state = state_of(trained(model, torch.optim.AdamW), registry)
    model.to(torch.bfloat16)
    narrow = ParameterRegistry.of(model).trainable
    y = ParameterVector(narrow.ids, vector(registry, 9, 0.1).tensors)
    y = ParameterVector(y.ids, tuple(None if t is None else t.float() for t in y.tensors))
    ours = next_step(narrow, state, y, None)
    assert {t.dtype for t in ours.landing.tensors if t is not None} == {torch.float32}
    assert ours.delta.non_zero == len(narrow)


def test_a_parameter_that_no_group_holds_is_refused() -> None:
    _, registry, state, y, _ = prepared("AdamW")
    with pytest.raises(ValueError, match="no group"):
        next_step(registry, replace(state, rules={}), y, None)


def test_moments_go_where_the_model_is() -> None:
    _, _, state, _, _ = prepared("AdamW, amsgrad")
    moved = state.to(torch.device("meta"))
    assert moved.moments.keys() == state.moments.keys()
    assert all(
        m.exp_avg.is_meta
        and m.exp_avg_sq.is_meta
        and m.max_exp_avg_sq is not None
        and m.max_exp_avg_sq.is_meta
        for m in moved.moments.values()
    )
    here = state.to(torch.device("cpu"))
    assert all(here.moments[name].exp_avg is m.exp_avg for name, m in state.moments.items())


def test_a_parameter_of_many_pieces_takes_torchs_step_bit_for_bit() -> None:
    generator = torch.Generator().manual_seed(0)
    long = nn.Module()
    long.w = nn.Parameter(torch.randn((300, 2**13 + 5), generator=generator))
    registry = ParameterRegistry.of(long)
    optimizer = trained(long, torch.optim.AdamW, foreach=True)
    y = vector(registry, 9, 0.1)
    ours = next_step(registry, state_of(optimizer, registry), y, CLIPPED)
    assert ours.clip < 1
    x = vector(registry, 5)
    assert ours.parts(x).total == pytest.approx(x.dot(ours.delta), rel=1e-3)
    (landing,) = ours.landing.tensors
    by_rows = [ours.landing.share(share) for share in ours.landing.shares]
    assert len(by_rows) == 3
    (truth,) = true_step(optimizer, y, registry, CLIPPED)  # which moves the weights
    assert torch.equal(landing, truth)
    assert torch.equal(torch.cat(by_rows), truth)


@pytest.mark.parametrize("limit", [CLIPPED, FREE])
def test_made_together_or_alone_parameters_land_on_the_same_bits(limit, monkeypatch):
    model = tiny.model()
    registry = ParameterRegistry.of(model).trainable
    state = state_of(trained(model, torch.optim.AdamW), registry)
    y = vector(registry, 9)
    together = next_step(registry, state, y, limit).landing.tensors[:]
    monkeypatch.setattr(module, "PIECE", max(p.numel() for p in registry.parameters))
    few = next_step(registry, state, y, limit)
    # Whoever asks for one parameter after another, in whatever order, gets what is its own.
    for index in reversed(range(len(registry))):
        landed = few.landing.tensors[index]
        assert landed is not None
        assert torch.equal(landed, together[index])
        assert torch.equal(few.delta.tensors[index], landed - registry.parameters[index].detach())
