"""Index → name: each state must land on the parameter that the optimizer kept it for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import tiny
import torch
from torch import nn

from probe_engine.registry import ParameterRegistry
from probe_engine.sources.checkpoints.adam_state import AdamReading
from probe_engine.sources.checkpoints.live import read_optimizer
from probe_engine.sources.checkpoints.optimizer_file import decay_groups, laid_on, open_optimizer_state
from probe_engine.types import StepRule


def stepped(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """One step on gradients that differ by parameter."""
    generator = torch.Generator().manual_seed(0)
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if parameter.requires_grad:
                parameter.grad = torch.randn(parameter.shape, generator=generator)
    optimizer.step()
    return optimizer


def read(saved: Any, model: nn.Module, **options: Any) -> AdamReading:
    trainer = options.pop("trainer", {})
    return laid_on(open_optimizer_state(saved, "optimizer.pt", **options), model, None, trainer)


def holds(reading: AdamReading, optimizer: torch.optim.Optimizer, model: nn.Module) -> bool:
    """Are the moments those that the live optimizer keeps, parameter by parameter?"""
    truth = {n: optimizer.state[p]["exp_avg_sq"] for n, p in model.named_parameters() if p in optimizer.state}
    moments = reading.state.moments
    return moments.keys() == truth.keys() and all(torch.equal(moments[n].exp_avg_sq, truth[n]) for n in truth)


def test_names_in_the_groups_beat_the_position() -> None:
    model = tiny.model()
    named = list(model.named_parameters())[::-1]
    optimizer = stepped(torch.optim.AdamW([(f"module.{n}", p) for n, p in named]))
    reading = read(optimizer.state_dict(), model)
    assert reading.state.mapped_by == "param_names"
    assert holds(reading, optimizer, model)


@pytest.mark.parametrize("only_trainable", [True, False])
def test_one_group_is_in_the_models_order(only_trainable: bool) -> None:
    model = tiny.with_lora(tiny.model())
    parameters = [p for p in model.parameters() if p.requires_grad or not only_trainable]
    optimizer = stepped(torch.optim.AdamW(parameters, lr=2e-3, betas=(0.8, 0.95), eps=1e-6))
    reading = read(optimizer.state_dict(), model)
    assert holds(reading, optimizer, model)
    state = reading.state
    assert (state.lr, state.lr_origin, state.betas, state.eps) == (2e-3, "optimizer.pt", (0.8, 0.95), 1e-6)
    assert (state.class_name, state.step) == ("AdamW", 1.0)


def test_a_parameter_without_gradient_has_no_state() -> None:
    model = tiny.model()
    optimizer = stepped(torch.optim.Adam(model.parameters()))
    saved = optimizer.state_dict()
    del saved["state"][3]
    reading = read(saved, model)
    absent = set(ParameterRegistry.of(model).names) - set(reading.state.moments)
    assert absent == {ParameterRegistry.of(model).names[3]}
    assert reading.state.class_name == "Adam"


def two_groups(model: nn.Module) -> torch.optim.Optimizer:
    """Every option of a group differs between the two."""
    decay, plain = decay_groups(model, ParameterRegistry.of(model))
    by_name = dict(model.named_parameters())
    groups: list[dict[str, Any]] = [
        {"params": [by_name[n] for n in decay], "lr": 3e-3, "weight_decay": 0.2, "betas": (0.8, 0.95)},
        {"params": [by_name[n] for n in plain], "eps": 1e-6, "maximize": True},
    ]
    return torch.optim.AdamW(groups, lr=1e-3, weight_decay=0.0, amsgrad=True)


def test_each_parameter_follows_its_own_group() -> None:
    model = tiny.model("gpt2")
    optimizer = stepped(two_groups(model))
    registry = ParameterRegistry.of(model)
    decay, plain = decay_groups(model, registry)
    for reading in (read(optimizer.state_dict(), model), read_optimizer(optimizer, registry)):
        rules = reading.state.rules
        assert reading.refusal is None
        assert rules.keys() == set(registry.names)
        assert {rules[n] for n in decay} == {StepRule(3e-3, (0.8, 0.95), 1e-8, 0.2, amsgrad=True)}
        assert {rules[n] for n in plain} == {
            StepRule(1e-3, (0.9, 0.999), 1e-6, 0.0, amsgrad=True, maximize=True)
        }
        for name, p in registry:
            largest = reading.state.moments[name].max_exp_avg_sq
            assert largest is not None
            assert torch.equal(largest, optimizer.state[p]["max_exp_avg_sq"])
    assert {r.lr for r in read_optimizer(optimizer, registry, lr=7.0).state.rules.values()} == {7.0}


@pytest.mark.parametrize(("make", "decoupled"), [(torch.optim.Adam, False), (torch.optim.AdamW, True)])
def test_whose_weight_decay_it_is(make: Callable[..., Any], decoupled: bool) -> None:
    model = tiny.model()
    saved = stepped(make(model.parameters(), weight_decay=0.1)).state_dict()
    assert {r.decoupled for r in read(saved, model).state.rules.values()} == {decoupled}


def test_what_the_optimizer_does_next_with_a_damaged_state_is_not_known() -> None:
    model = tiny.model()
    saved = stepped(torch.optim.AdamW(model.parameters())).state_dict()
    saved["state"][0]["exp_avg_sq"][0] = -1.0
    saved["state"][1]["step"] = torch.tensor(0.0)
    names = ParameterRegistry.of(model).names
    assert set(names) - read(saved, model).state.rules.keys() == set(names[:2])


@pytest.mark.parametrize("broken", ["lr", "eps", "weight_decay"])
def test_numbers_that_torch_can_not_step_with_are_no_rule(broken: str) -> None:
    model = tiny.model()
    saved = stepped(torch.optim.AdamW(model.parameters())).state_dict()
    saved["param_groups"][0][broken] = 1e300
    reading = read(saved, model)
    assert reading.refusal is None
    assert reading.state.moments
    assert not reading.state.rules


def adafactor(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.Adafactor(parameters)


@pytest.mark.parametrize(
    ("make", "family"),
    [
        (adafactor, "Adafactor|does not know"),
        (lambda p: torch.optim.SGD(p, momentum=0.9), "SGD"),
        (torch.optim.NAdam, "NAdam"),
        (torch.optim.Adamax, "Adamax"),
        (torch.optim.RMSprop, "RMSprop"),
        (torch.optim.Adagrad, "Adagrad"),
    ],
)
def test_other_families_are_named_and_refused(make: Callable[..., Any], family: str) -> None:
    model = tiny.model()
    optimizer = stepped(make(model.parameters()))
    registry = ParameterRegistry.of(model)
    for reading in (read(optimizer.state_dict(), model), read_optimizer(optimizer, registry)):
        assert reading.refusal is not None
        assert reading.refusal.code == "OPT002"
        assert any(name in reading.refusal.message for name in family.split("|"))
        assert reading.state.moments == {}


@pytest.mark.parametrize(
    ("edit", "code"),
    [
        (lambda s: s["state"].clear(), "OPT001"),
        (lambda s: s["state"][0].update(exp_avg=torch.zeros(2)), "OPT003"),
        (lambda s: s["state"][0].update(exp_avg_sq="text"), "OPT003"),
        (lambda s: s["param_groups"][0]["params"].pop(), "OPT003"),
        (lambda s: s["param_groups"][0]["params"].append(0), "OPT003"),
        (lambda s: s["state"].update({999: s["state"][0]}), "OPT003"),
        (lambda s: s.pop("state"), "OPT003"),
        (lambda s: s.update(param_groups=[{"params": 3}]), "OPT003"),
        (lambda s: s["param_groups"].append({"params": [0.5]}), "OPT003"),
    ],
)
def test_what_does_not_fit_is_refused(edit: Callable[[Any], Any], code: str) -> None:
    model = tiny.model()
    saved = stepped(torch.optim.AdamW(model.parameters())).state_dict()
    edit(saved)
    reading = read(saved, model)
    assert reading.refusal is not None
    assert reading.refusal.code == code
    assert reading.state.moments == {}


def test_odd_hyperparameters_fall_back_to_the_trainers() -> None:
    model = tiny.model()
    saved = stepped(torch.optim.AdamW(model.parameters())).state_dict()
    saved["param_groups"][0] |= {"lr": float("nan"), "betas": "odd", "eps": -1}
    trainer = {"learning_rate": 3e-6, "adam_beta1": 0.7, "adam_beta2": 2.0, "adam_epsilon": 1e-5}
    state = read(saved, model, trainer=trainer).state
    assert (state.lr, state.lr_origin) == (3e-6, "training_args.bin")
    assert (state.betas, state.eps) == ((0.7, 0.999), 1e-5)


@pytest.mark.parametrize("step", [0.0, None, torch.tensor(0.0), float("nan")])
def test_moments_without_a_step_are_left_out(step: Any) -> None:
    model = tiny.model()
    saved = stepped(torch.optim.AdamW(model.parameters())).state_dict()
    saved["state"][1]["step"] = step
    reading = read(saved, model)
    assert reading.stepless == (ParameterRegistry.of(model).names[1],)
    assert reading.stepless[0] not in reading.state.moments


class TestLive:
    """A live optimizer is matched by object."""

    def test_its_state_is_its_own(self) -> None:
        model = tiny.model()
        registry = ParameterRegistry.of(model)
        optimizer = stepped(torch.optim.AdamW(reversed(list(model.parameters()))))
        reading = read_optimizer(optimizer, registry)
        assert holds(reading, optimizer, model)
        assert reading.state.mapped_by == "object"

    def test_parameters_of_another_model_are_strays(self) -> None:
        model = tiny.model()
        registry = ParameterRegistry.of(model)
        extra = nn.Parameter(torch.zeros(5))
        reading = read_optimizer(stepped(torch.optim.AdamW([*model.parameters(), extra])), registry)
        assert reading.strays == ("[5]",)
        assert len(reading.state.moments) == len(registry)

    def test_an_optimizer_built_before_the_model_was_reloaded_is_refused(self) -> None:
        reading = read_optimizer(
            stepped(torch.optim.AdamW(tiny.model().parameters())), ParameterRegistry.of(tiny.model())
        )
        assert reading.refusal is not None
        assert reading.refusal.code == "OPT009"
        assert "other objects" in reading.refusal.message
