"""What passes cost: the formulas against what torch counts of the passes themselves."""

from __future__ import annotations

import gc
import weakref

import pytest
import tiny
from torch.utils.flop_counter import FlopCounterMode

from probe_engine.model.unit_gradients import UnitObjective, objectives, unit_gradients
from probe_engine.model.workload import PassTokens, TokenCost, counted
from probe_engine.types import Policy

MODELS = {"lora": lambda: tiny.with_lora(tiny.model(**LARGER)), "full": lambda: tiny.model(**LARGER)}
LARGER = {"hidden_size": 64, "intermediate_size": 128}
"""Products of weights outweigh what a tiny model spends on attention and its head."""


def cost(policy: Policy, units: list[UnitObjective]) -> TokenCost:
    longest = max((s for u in units for s in u.sequences), key=len)
    return TokenCost.of(counted(policy.model, longest, 1.0), policy.registry, checkpointing=False)


def flops_of_a_first_pass(policy: Policy, units: list[UnitObjective], method: str) -> int:
    computed = unit_gradients(method, policy.model, policy.registry, micro_batch=8, temperature=1.0)
    with FlopCounterMode(display=False) as counter:
        for _ in computed.measurements(units, lambda *_: None):
            pass
    return counter.get_total_flops()


@pytest.mark.parametrize("method", ["fused", "loop"])
@pytest.mark.parametrize("kind", MODELS)
def test_a_first_pass_costs_what_is_foreseen(kind: str, method: str) -> None:
    policy, units = tiny.policy(MODELS[kind]()), objectives(tiny.batch())
    foreseen = cost(policy, units).gradients(method, PassTokens.of(method, units, 8))
    assert foreseen == pytest.approx(flops_of_a_first_pass(policy, units, method), rel=0.25)


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
    if packs:
        assert tokens.differentiated == sum(u.tokens for u in units)


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
    counted(model, objectives(tiny.batch())[0].sequences[0], 1.0)
    del model
    gc.collect()
    assert parameter() is None
