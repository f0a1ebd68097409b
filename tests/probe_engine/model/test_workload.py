"""What passes cost: the formulas against what torch counts of the passes themselves."""

from __future__ import annotations

import dataclasses
import gc
import weakref

import pytest
import tiny
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from probe_engine.model.teacher_forcing import Layout, response_logits
from probe_engine.model.unit_gradients import UnitObjective, objectives, unit_gradients
from probe_engine.model.workload import Counted, PassTokens, TokenCost, first_forward
from probe_engine.types import Policy

MODELS = {"lora": lambda: tiny.with_lora(tiny.model(**LARGER)), "full": lambda: tiny.model(**LARGER)}
LARGER = {"hidden_size": 64, "intermediate_size": 128}
"""Products of weights outweigh what a tiny model spends on attention and its head."""


def cost(policy: Policy, units: list[UnitObjective]) -> TokenCost:
    return TokenCost.of(one_forward(policy.model, units), policy.registry, checkpointing=False)


def one_forward(model: nn.Module, units: list[UnitObjective]) -> Counted:
    layout = Layout.of(units[0].sequences, device=torch.device("cpu"))
    with first_forward(model) as counted:
        with torch.no_grad():
            response_logits(model, layout)
        for _ in range(2):
            response_logits(model, layout)
    (one,) = counted
    return one


@pytest.mark.parametrize("method", ["fused", "loop"])
@pytest.mark.parametrize("kind", MODELS)
def test_a_first_pass_costs_what_is_foreseen(kind: str, method: str) -> None:
    policy, units = tiny.policy(MODELS[kind]()), objectives(tiny.batch())
    computed = unit_gradients(method, policy.model, policy.registry, micro_batch=8, temperature=1.0)
    tokens = PassTokens.of(method, units, 8, packs=computed.packs(units))
    with FlopCounterMode(display=False) as counter:
        for _ in computed.measurements(units, lambda *_: None):
            pass
    foreseen = cost(policy, units).gradients(method, tokens)
    assert foreseen == pytest.approx(counter.get_total_flops(), rel=0.25)


@pytest.mark.parametrize(("method", "attention"), [("fused", "sdpa"), ("fused", "eager"), ("loop", "sdpa")])
@pytest.mark.parametrize("micro_batch", [2, 8])
def test_tokens_are_those_that_the_model_is_given(method: str, attention: str, micro_batch: int) -> None:
    policy, units = tiny.policy(MODELS["lora"]()), objectives(tiny.batch())
    policy.model.set_attn_implementation(attention)
    given: list[int] = []
    policy.model.register_forward_pre_hook(
        lambda _module, _args, kwargs: given.append(kwargs["input_ids"].numel()), with_kwargs=True
    )
    computed = unit_gradients(method, policy.model, policy.registry, micro_batch=micro_batch, temperature=1.0)
    packs = computed.packs(units)
    assert packs == ((method, attention) == ("fused", "sdpa"))
    given.clear()
    for _ in computed.measurements(units, lambda *_: None):
        pass
    tokens = PassTokens.of(method, units, micro_batch, packs=packs)
    assert sum(given) == tokens.differentiated + tokens.scored_first
    if packs:  # nothing padded, prompts in common
        assert tokens.differentiated < sum(u.tokens for u in units)


def test_progress_is_told_of_whole_windows_before_their_units_come() -> None:
    policy, units = tiny.policy(MODELS["lora"]()), objectives(tiny.batch(sizes=(2, 2, 2, 2, 2, 2)))
    computed = unit_gradients("fused", policy.model, policy.registry, micro_batch=8, temperature=1.0)
    done = 0

    def passed(tokens: int) -> None:
        nonlocal done
        done += tokens

    seen = [done for _ in computed.scores(units, passed)]
    each = [u.tokens for u in units]
    assert seen[0] > each[0]  # the first window holds several units
    assert all(now >= sum(each[: n + 1]) for n, now in enumerate(seen))
    assert done == sum(each)


@pytest.mark.parametrize("method", ["fused", "loop"])
def test_a_unit_of_several_parts_is_scored_first(method: str) -> None:
    units = objectives(tiny.batch(sizes=(6,)))
    tokens = PassTokens.of(method, units, 2)
    assert tokens.scored_first == tokens.differentiated >= units[0].tokens


def test_counting_leaves_nothing_of_the_model_behind() -> None:
    model = tiny.with_lora(tiny.model())
    parameter = weakref.ref(next(model.parameters()))
    one_forward(model, objectives(tiny.batch()))
    del model
    gc.collect()
    assert parameter() is None


@pytest.mark.parametrize("kind", ["llama", "gpt2", "mixtral", "gemma", "opt", "gpt_neox"])
def test_operations_are_those_that_torch_counts(kind: str) -> None:
    model, units = tiny.model(kind), objectives(tiny.batch())
    layout = Layout.of(units[0].sequences, device=torch.device("cpu"))
    with FlopCounterMode(display=False) as counter:
        response_logits(model, layout)
    one = one_forward(model, units)
    assert one.flops == counter.get_total_flops()
    assert one.tokens == layout.input_ids.numel()
    assert one.vocabulary == tiny.VOCABULARY


def test_bytes_are_those_of_what_autograd_saves() -> None:
    class Product(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(8, 3)
            self.weight = nn.Parameter(torch.ones(3, 8))

        def forward(self, input_ids: Tensor) -> Tensor:
            x = self.embed(input_ids)
            return x.exp() @ self.weight  # what exp gives is saved by exp and by the product: once

    model = Product()
    with first_forward(model) as counted:
        model(input_ids=torch.zeros(2, 5, dtype=torch.long))
    assert counted[0].saved == 2 * 5 * 3 * 4 + 2 * 5 * 8  # and the ids
    assert counted[0].flops == 2 * 2 * 5 * 3 * 8


def test_passes_after_the_first_are_timed_and_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter([0.0, 8.0, 10.0, 11.0])
    monkeypatch.setattr("probe_engine.model.workload.time.perf_counter", lambda: next(ticks))
    model = tiny.model()
    with first_forward(model) as counted:
        model(input_ids=torch.zeros(1, 4, dtype=torch.long))
        (one,) = counted
        model(input_ids=torch.zeros(1, 8, dtype=torch.long))
        with torch.no_grad():
            model(input_ids=torch.zeros(1, 8, dtype=torch.long))
    assert (one.tokens, one.seconds) == (4, 8)
    assert counted == [dataclasses.replace(one, seconds=0.5)]  # 4 of the 8 tokens of one second


def test_a_forward_that_raises_leaves_nothing_behind() -> None:
    model = tiny.model()
    handle = model.lm_head.register_forward_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError), first_forward(model) as counted:
        one_pass(model)
    assert counted == []
    handle.remove()
    flops = FlopCounterMode(display=False)
    with flops:
        one_pass(model)
    assert flops.get_total_flops() > 0
    assert not model._forward_hooks
    assert not model._forward_pre_hooks


def one_pass(model: nn.Module) -> None:
    model(input_ids=torch.zeros(1, 4, dtype=torch.long))


def test_what_a_first_pass_leaves_saves_the_second_what_is_foreseen() -> None:
    policy, units = tiny.policy(MODELS["full"]()), objectives(tiny.batch(sizes=(4, 4, 4, 4)))
    computed = unit_gradients("fused", policy.model, policy.registry, micro_batch=8, temperature=1.0)
    packs, one = computed.packs(units), cost(policy, units)

    def costs(*, hold: bool) -> tuple[float, int]:
        tokens = PassTokens.of("fused", units, 8, packs=packs, holds=hold)
        assert (0 < tokens.held < tokens.differentiated) == hold
        scored = list(computed.measurements(units, lambda *_: None, hold=hold))
        with FlopCounterMode(display=False) as counter:
            list(computed.contractions(scored, [], []))
        return one.contractions("fused", tokens, directions=0), counter.get_total_flops()

    (foreseen, found), (foreseen_held, found_held) = costs(hold=False), costs(hold=True)
    assert foreseen - foreseen_held == pytest.approx(found - found_held, rel=0.15)
