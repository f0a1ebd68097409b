"""Preconditioner against torch's own AdamW; the virtual step against bit patterns."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import tiny
import torch

from probe_engine.model.preconditioner import preconditioner, stale_ratio
from probe_engine.model.preserving import in_float32, preserved
from probe_engine.model.virtual_step import landed, virtual_step
from probe_engine.registry import ParameterRegistry
from probe_engine.types import AdamMoments, OptimizerState
from probe_engine.vectors import ParameterVector


def vector(registry: ParameterRegistry, seed: int = 0) -> ParameterVector:
    generator = torch.Generator().manual_seed(seed)
    return ParameterVector(
        registry.ids,
        tuple(torch.randn(p.shape, generator=generator).to(p.dtype) for p in registry.parameters),
    )


def test_p_times_the_first_moment_is_torchs_own_adamw_step():
    """One AdamW step with gradient g and m = 0 moves by lr·(1 − β₁)/bc₁·g/(√v̂⁺ + ε): its P⁺ is ours."""
    model = tiny.model("llama", dtype=torch.float64)
    registry = ParameterRegistry.of(model).trainable
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, betas=(0.0, 0.9), weight_decay=0.0)
    for seed in range(3):
        for p, g in zip(registry.parameters, vector(registry, seed).tensors, strict=True):
            p.grad = g
        before = [p.detach().clone() for p in registry.parameters]
        optimizer.step()
    state = OptimizerState(
        "AdamW",
        0.1,
        "",
        (0.0, 0.9),
        1e-8,
        0.0,
        3,
        {
            name: AdamMoments(optimizer.state[p]["exp_avg"], optimizer.state[p]["exp_avg_sq"], 3.0)
            for name, p in registry
        },
    )
    step = preconditioner(registry, state)(vector(registry, 2))
    for p, old, ours in zip(registry.parameters, before, step.tensors, strict=True):
        torch.testing.assert_close(p.detach() - old, -0.1 * ours, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("bad", ["absent", "nan", "negative", "step 0"])
def test_a_parameter_without_usable_state_falls_back_to_1_and_is_named(bad):
    policy = tiny.policy(tiny.with_lora(tiny.model("llama")))
    moments = dict(policy.optimizer.moments)
    victim = policy.registry.names[1]
    old = moments.pop(victim)
    if bad == "nan":
        moments[victim] = AdamMoments(old.exp_avg, old.exp_avg_sq * float("nan"), old.step)
    elif bad == "negative":
        moments[victim] = AdamMoments(old.exp_avg, -old.exp_avg_sq, old.step)
    elif bad == "step 0":
        moments[victim] = AdamMoments(old.exp_avg, old.exp_avg_sq, 0.0)
    state = OptimizerState("AdamW", 1e-3, "", (0.9, 0.99), 1e-8, 0.0, 5, moments)
    p = preconditioner(policy.registry, state)
    assert p.fallbacks == (victim,)
    v = vector(policy.registry)
    assert torch.equal(p(v).tensors[1], v.tensors[1])
    assert not torch.equal(p(v).tensors[0], v.tensors[0])


def test_stale_ratio_is_1_for_a_fresh_v_and_large_for_a_tiny_one():
    policy = tiny.policy(tiny.with_lora(tiny.model("llama")))
    gradient = vector(policy.registry)

    def ratio(scale: float) -> float:
        moments = {
            name: AdamMoments(g, scale * g.square(), 1e9)
            for (name, _), g in zip(policy.registry, gradient.tensors, strict=True)
        }
        state = OptimizerState("AdamW", 1e-3, "", (0.9, 0.99), 1e-12, 0.0, 1e9, moments)
        return stale_ratio(policy.registry, state, preconditioner(policy.registry, state), gradient)

    assert ratio(1.0) == pytest.approx(1.0, rel=1e-4)
    # v = g²/10⁴: P = 100/|g|, v̂⁺ = (0.99e-4 + 0.01)g², so the ratio is √(0.010099/1e-4).
    assert ratio(1e-4) == pytest.approx((0.010099 / 1e-4) ** 0.5, rel=1e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("interrupted", [False, True])
def test_weights_are_bit_identical_after_a_virtual_step(dtype, interrupted):
    model = tiny.model("llama", dtype=dtype)
    registry = ParameterRegistry.of(model).trainable
    before = [p.detach().clone() for p in model.parameters()]
    step = vector(registry).scaled(0.1)
    try:
        with virtual_step(registry, step):
            moved = [not torch.equal(p, old) for p, old in zip(model.parameters(), before, strict=True)]
            if interrupted:
                raise KeyboardInterrupt
    except KeyboardInterrupt:
        assert interrupted
    assert all(moved)
    assert all(torch.equal(p, old) for p, old in zip(model.parameters(), before, strict=True))


def test_bf16_weights_are_widened_for_the_step_and_come_back():
    model = tiny.model("llama", dtype=torch.bfloat16)
    registry = ParameterRegistry.of(model).trainable
    before = [p.detach().clone() for p in model.parameters()]
    small = ParameterVector(registry.ids, tuple(p.detach().float() * 1e-4 for p in registry.parameters))
    with in_float32(model), virtual_step(registry, small):
        # |Δw| < |w|/256 would vanish in bf16.
        for p, old in zip(model.parameters(), before, strict=True):
            torch.testing.assert_close(p.detach(), old.float() * 1.0001, rtol=1e-6, atol=0)
    for p, old in zip(model.parameters(), before, strict=True):
        assert p.dtype == torch.bfloat16
        assert torch.equal(p, old)


def test_a_step_for_other_parameters_is_refused():
    one, other = (ParameterRegistry.of(tiny.model("llama", seed=s)).trainable for s in (0, 1))
    for move in (virtual_step, landed):
        with pytest.raises(ValueError, match="re-wrapped"), move(one, vector(other)):
            pass


def test_a_landing_is_met_bit_for_bit_and_left_again():
    model = tiny.model("llama")
    registry = ParameterRegistry.of(model).trainable
    before = [p.detach().clone() for p in registry.parameters]
    there = vector(registry, 4)
    missing = ParameterVector(there.ids, (None, *there.tensors[1:]))
    with landed(registry, missing):
        assert torch.equal(registry.parameters[0], before[0])
        assert all(torch.equal(p, t) for p, t in zip(registry.parameters[1:], there.tensors[1:], strict=True))
    assert all(torch.equal(p, old) for p, old in zip(registry.parameters, before, strict=True))


def test_amsgrads_largest_v_is_under_the_root():
    policy = tiny.policy(tiny.with_lora(tiny.model("llama")))
    registry, state = policy.registry, policy.optimizer
    largest = {
        n: replace(m, max_exp_avg_sq=4 * m.exp_avg_sq + 1, exp_avg_sq=m.exp_avg_sq)
        for n, m in state.moments.items()
    }
    as_v = {n: replace(m, exp_avg_sq=4 * m.exp_avg_sq + 1) for n, m in state.moments.items()}
    ours = preconditioner(registry, replace(state, moments=largest))
    theirs = preconditioner(registry, replace(state, moments=as_v))
    for a, b in zip(ours.diagonal, theirs.diagonal, strict=True):
        assert torch.equal(a, b)
    # A fresh gradient below the largest v moves nothing; one far above takes its place.
    y = vector(registry)
    small, large = (
        stale_ratio(registry, replace(state, moments=largest), ours, y.scaled(s)) for s in (1e-3, 1e3)
    )
    assert small == pytest.approx(math.sqrt((1 - 0.99**5) / (1 - 0.99**6)), rel=1e-3)
    assert large > 10


def test_modes_and_rng_come_back():
    model = tiny.with_lora(tiny.model("llama"))
    model.train()
    next(model.children()).eval()
    modes = [m.training for m in model.modules()]
    rng = torch.get_rng_state()
    with preserved(model):
        assert not any(m.training for m in model.modules())
        torch.randn(3)
    assert [m.training for m in model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), rng)
