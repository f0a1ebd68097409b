"""Gradient checkpointing: less is kept, every number stays, and so does the model."""

from __future__ import annotations

import pytest
import tiny
import torch
from torch import nn

from probe_engine.model.checkpointing import checkpointable, checkpointed, recomputing
from probe_engine.model.teacher_forcing import token_log_probs
from probe_engine.model.unit_gradients import UnitObjective, objectives, unit_gradients
from probe_engine.model.unit_gradients.interface import Measurement
from probe_engine.model.workload import first_forward
from probe_engine.types import Policy

BUILDS = {
    "llama-lora": lambda: tiny.with_lora(tiny.model("llama")),
    "llama-dora": lambda: tiny.with_lora(tiny.model("llama"), use_dora=True, lora_dropout=0.5),
    "gpt2": lambda: tiny.model("gpt2", resid_pdrop=0.5),
    "opt": lambda: tiny.model("opt", dropout=0.5),  # drops out in the layer's own forward
    "mixtral": lambda: tiny.model("mixtral"),
}


@pytest.fixture(params=BUILDS)
def model(request: pytest.FixtureRequest) -> nn.Module:
    return BUILDS[request.param]().eval()


def measured(policy: Policy, method: str) -> list[Measurement]:
    computed = unit_gradients(method, policy.model, policy.registry, micro_batch=8, temperature=1.0)
    return [computed.measure(unit) for unit in objectives(tiny.batch())[:2]]


def assert_same(ours: list[Measurement], theirs: list[Measurement]) -> None:
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine.S, other.S, rtol=1e-6, atol=0)
        for a, b in ((mine.x, other.x), (mine.y, other.y)):
            assert a.norm() > 0
            assert [t is None for t in a.tensors] == [t is None for t in b.tensors]
            distance = sum(
                float((s - t).square().sum())
                for s, t in zip(a.tensors, b.tensors, strict=True)
                if s is not None and t is not None
            )
            assert distance**0.5 <= 1e-5 * b.norm()


@pytest.mark.parametrize("method", ["loop", "fused", "alpha"])
def test_the_numbers_are_those_without(model: nn.Module, method: str) -> None:
    policy = tiny.policy(model)
    plain = measured(policy, method)
    with checkpointed(model):
        assert_same(measured(policy, method), plain)


def test_every_layer_runs_twice_and_keeps_its_input_alone(model: nn.Module) -> None:
    layers = checkpointable(model)
    runs = dict.fromkeys(layers, 0)

    def count(layer: nn.Module, *_: object) -> None:
        runs[layer] += 1

    for layer in layers:
        inner = next(m for m in layer.modules() if not list(m.children()))
        inner.register_forward_pre_hook(lambda *_, layer=layer: count(layer))
    unit = objectives(tiny.batch())[0]
    plain = saved(model, unit)
    with checkpointed(model):
        assert recomputing(model) == len(layers)
        assert saved(model, unit) < plain
        for layer in layers:
            runs[layer] = 0
        measured_once = unit_gradients(
            "loop", model, tiny.policy(model).registry, micro_batch=8, temperature=1.0
        ).measure(unit)
    assert measured_once.x.norm() > 0
    assert len(layers) == 2
    assert all(count >= 2 for count in runs.values())


def saved(model: nn.Module, unit: UnitObjective) -> int:
    with first_forward(model) as counted:
        token_log_probs(model, unit.sequences)
    return counted[0].saved


def test_nothing_is_left_behind(model: nn.Module) -> None:
    before = {name: vars(module).copy() for name, module in model.named_modules()}
    with checkpointed(model):
        assert not any(module.training for module in model.modules())
    after = {name: vars(module) for name, module in model.named_modules()}
    assert {n: v.keys() for n, v in after.items()} == {n: v.keys() for n, v in before.items()}
