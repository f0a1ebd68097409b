"""A method that does not give what plain autograd gives is noticed, whatever it gets wrong."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import tiny
import torch
from torch import Tensor, nn

from probe_engine.checks.numerics import fast_method
from probe_engine.estimators.token_statistics import TokenStatistics
from probe_engine.model.preconditioner import preconditioner
from probe_engine.model.unit_gradients import (
    Dots,
    Measurement,
    UnitGradients,
    UnitObjective,
    objectives,
    unit_gradients,
)
from probe_engine.model.unit_gradients.agreement import Agreement, agreement
from probe_engine.model.unit_gradients.interface import Receive, Scored
from probe_engine.model.unit_gradients.received import handed_over, measured_together
from probe_engine.types import Policy
from probe_engine.vectors import ParameterVector

F32 = torch.float32


class Unrecorded(torch.autograd.Function):
    """x² whose backward is right and leaves no graph."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        with torch.no_grad():
            return gradients[0] * 2 * x


class Refused(Unrecorded):
    """The same, from a kernel that says so."""

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            raise RuntimeError("derivative for square_backward is not implemented")
        return Unrecorded.backward(ctx, *gradients)


class Wrong:
    """Plain autograd with one kind of number spoiled."""

    def __init__(self, plain: UnitGradients, what: str) -> None:
        self.plain, self.what = plain, what

    def __getattr__(self, name: str) -> Any:
        return getattr(self.plain, name)

    def measure(self, objective: UnitObjective, *, rao_blackwell: bool = False) -> Measurement:
        measured = self.plain.measure(objective, rao_blackwell=rao_blackwell)
        if self.what == "X of (2b)":
            assert measured.x_rb is not None
            return dataclasses.replace(measured, x_rb=measured.x_rb.scaled(1.01))
        if self.what == "S":
            return dataclasses.replace(measured, S=measured.S * 1.01)
        if "rounding" in self.what:
            S = measured.S * torch.tensor([1 + 2e-7, 1.0])
            weights, expected = (objective.weights(values)[0] for values in (S, measured.S))
            x = measured.x.scaled(float(weights[0] / expected[0]))
            measured = dataclasses.replace(measured, S=S, x=x)
        if "X" in self.what.split(" and "):
            first, *others = measured.x.tensors
            assert first is not None
            without = ParameterVector(measured.x.ids, (torch.zeros_like(first), *others))
            return dataclasses.replace(measured, x=without)
        if self.what == "Y":
            return dataclasses.replace(measured, y=measured.y.scaled(float("nan")))
        return measured

    def measurements(
        self, units: Sequence[UnitObjective], receive: Receive, *, rao_blackwell: bool
    ) -> Iterator[Scored]:
        for number, unit in enumerate(units):
            measured = self.measure(unit, rao_blackwell=rao_blackwell)
            handed_over(number, measured, receive)
            yield measured

    def contract(
        self,
        objective: UnitObjective,
        S: Tensor,
        x_directions: Sequence[ParameterVector],
        y_directions: Sequence[ParameterVector],
        tokens: Sequence[TokenStatistics] = (),
    ) -> Dots:
        x, y, x_rb = self.plain.contract(objective, S, x_directions, y_directions, tokens)
        return Dots(
            [0.0] * len(x) if self.what == "X·v" else x,
            [v * 1.01 for v in y] if self.what == "Y·v" else y,
            [v * 1.01 for v in x_rb] if self.what == "X of (2b)·v" else x_rb,
        )


def compared(
    model: nn.Module, name: str = "alpha", wrong: str = "", *, second_pass: bool = True
) -> Agreement:
    policy: Policy = tiny.policy(model)
    method, plain = (
        unit_gradients(which, policy.model, policy.registry, micro_batch=3, temperature=1.0)
        for which in (name, "loop")
    )
    (unit,) = objectives(tiny.batch(sizes=(4,)))
    p = preconditioner(policy.registry, policy.optimizer)
    tried: Any = Wrong(plain, wrong) if wrong else method
    return agreement(tried, plain, unit, p, rao_blackwell=True, second_pass=second_pass)


def activated(function: Any) -> nn.Module:
    model: Any = tiny.model()
    model.model.layers[1].mlp.act_fn.forward = function.apply
    return model


@pytest.mark.parametrize("name", ["fused", "alpha", "alpha-vjp"])
@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_healthy_methods_agree(name: str, kind: str) -> None:
    seen = compared(tiny.with_lora(tiny.model(kind)), name)
    assert seen.worst[1] < 1e-5
    assert fast_method(name, F32, seen).status == "ok"


@pytest.mark.parametrize("what", ["S", "X", "Y", "X·v", "Y·v", "X of (2b)", "X of (2b)·v"])
def test_each_kind_of_number_is_looked_at(what: str) -> None:
    seen = compared(tiny.model(), wrong=what)
    assert not seen.errors[what] < 5e-3
    found = fast_method("wrong", F32, seen)
    assert found.status == "warn"
    assert f"{seen.worst[0]} is off by" in found.message


@pytest.mark.parametrize(("apart", "compares_x"), [(1e-4, True), (1e-7, False)])
def test_responses_of_nearly_the_same_s_leave_rounding_in_x(apart: float, compares_x: bool) -> None:
    policy = tiny.policy(tiny.model())
    plain = unit_gradients("loop", policy.model, policy.registry, micro_batch=2, temperature=1.0)
    unit = objectives(tiny.batch(sizes=(4,)))[0].pair()
    a = (plain.measure(unit).S + 1) * unit.lam
    close = dataclasses.replace(unit, lam=unit.lam * torch.stack([torch.ones(()), a[0] / a[1] * (1 + apart)]))
    p = preconditioner(policy.registry, policy.optimizer)

    def tried(wrong: str) -> Agreement:
        method: Any = Wrong(plain, wrong)
        return agreement(method, plain, close, p, second_pass=False)

    rounded = tried("rounding")
    assert fast_method("rounded", F32, rounded).status == "ok"
    assert ("X" in rounded.errors) == compares_x
    assert (fast_method("wrong", F32, tried("rounding and X")).status == "warn") == compares_x


def test_responses_that_begin_alike_leave_rounding_in_x() -> None:
    """One is the other and a token that is all but certain: S differ enough, their gradients do not."""
    model: Any = tiny.with_lora(tiny.model())
    policy = tiny.policy(model)
    unit = objectives(tiny.batch(sizes=(4,)))[0].pair()
    begun = dataclasses.replace(unit.sequences[0], response=unit.sequences[0].response[:2])
    with torch.no_grad():
        model.get_base_model().lm_head.weight.mul_(40)
        logits = model(input_ids=torch.tensor([begun.prompt + begun.response])).logits[0, -1]
    longer = dataclasses.replace(begun, response=(*begun.response, int(logits.argmax())))
    alike = dataclasses.replace(unit, sequences=(begun, longer))
    fused, plain = (
        unit_gradients(name, policy.model, policy.registry, micro_batch=2, temperature=1.0)
        for name in ("fused", "loop")
    )
    seen = agreement(fused, plain, alike, preconditioner(policy.registry, policy.optimizer))
    assert "X" in seen.errors
    assert seen.worst[1] < 1e-5


def test_contractions_are_left_out_where_there_will_be_none() -> None:
    assert set(compared(tiny.model(), wrong="X·v", second_pass=False).errors) == {"S", "X", "Y", "X of (2b)"}


def test_a_second_derivative_that_is_silently_wrong_shows_in_the_contractions() -> None:
    seen = compared(activated(Unrecorded))
    assert seen.errors["X"] < 1e-5
    assert min(seen.errors["X·v"], seen.errors["Y·v"]) > 1e-2


def test_a_second_derivative_that_is_refused_is_quoted() -> None:
    seen = compared(activated(Refused))
    found = fast_method("alpha", F32, seen)
    assert found.status == "warn"
    assert "square_backward is not implemented" in found.message


def test_plain_autograd_itself_and_gradients_of_nothing_are_skipped() -> None:
    assert fast_method("loop", F32, None).status == "skip"
    model = tiny.model()
    next(p for n, p in model.named_parameters() if "layers.0" in n).data[0] = torch.nan
    seen = compared(model)
    assert seen.errors == {}
    assert "GRAD011" in fast_method("alpha", F32, seen).message


def test_units_measured_together_are_what_each_is_alone() -> None:
    policy: Policy = tiny.policy(tiny.with_lora(tiny.model()))
    plain = unit_gradients("loop", policy.model, policy.registry, micro_batch=8, temperature=1.0)
    fused = unit_gradients("fused", policy.model, policy.registry, micro_batch=8, temperature=1.0)
    units = [unit.brief() for unit in objectives(tiny.batch(sizes=(4, 4)))]
    for ours, unit in zip(
        measured_together(fused, policy.registry, units, rao_blackwell=True), units, strict=True
    ):
        theirs = plain.measure(unit, rao_blackwell=True)
        assert ours.x_rb is not None
        assert theirs.x_rb is not None
        for one, other in ((ours.x, theirs.x), (ours.y, theirs.y), (ours.x_rb, theirs.x_rb)):
            assert one.plus(other, -1.0).norm() <= 1e-5 * other.norm()
