"""All methods give the same numbers, whatever the micro-batch, the padding side and the order."""

from __future__ import annotations

import dataclasses
from functools import cache

import pytest
import tiny
import torch

from probe_engine.model import teacher_forcing
from probe_engine.model.preconditioner import preconditioner
from probe_engine.model.unit_gradients import objectives, unit_gradients
from probe_engine.report import GradientFlow
from probe_engine.spec import StepKind
from probe_engine.stages.measure import measure
from probe_engine.stages.measured import Measured
from probe_engine.types import Batch, Policy

METHODS = ("loop", "alpha", "alpha-vjp", "fused")
BUILDS = {
    "llama-lora": lambda dtype: tiny.cast(tiny.with_lora(tiny.model("llama")), dtype),
    "qwen2-dora": lambda dtype: tiny.cast(tiny.with_lora(tiny.model("qwen2"), use_dora=True), dtype),
    "gpt2-full-tied": lambda dtype: tiny.model("gpt2", dtype=dtype),
}


def measured(
    policy: Policy,
    batch: Batch,
    method: str = "loop",
    *,
    micro_batch: int = 8,
    budget: int = 2**30,
    steps: tuple[StepKind, ...] = (),
):
    units = objectives(batch)
    computed = unit_gradients(method, policy.model, policy.registry, micro_batch=micro_batch, temperature=1.0)
    stage = measure(
        policy,
        units,
        computed,
        preconditioner(policy.registry, policy.optimizer),
        GradientFlow(grad_context="grad on", registry=len(policy.registry)),
        1.0,
        budget,
        steps=steps,
        x_estimator="both" if batch.constant_lambda else "score",
    )
    while True:
        try:
            next(stage)
        except StopIteration as stop:
            return stop.value


def scalars(result: Measured) -> dict[str, torch.Tensor]:
    """Each kind of number over the units, by unit id, by either form of X."""
    kinds: dict[str, list[float]] = {}
    for form, projected in result.by_form.items():
        units = sorted(projected.scalars, key=lambda u: u.id)
        for name in ("x_norm", "y_norm", "py_norm", "x_dot_py"):
            kinds[f"{form} {name}"] = [getattr(u, name) for u in units]
        for role in ("E", "U"):
            kinds[f"{form} x_dot_sum_py_{role}"] = [u.x_dot_sum_py[role] for u in units]
            kinds[f"{form} py_dot_sum_x_{role}"] = [u.py_dot_sum_x[role] for u in units]
        if projected.own is not None:
            kinds[f"{form} own x"] = [x for _, x in sorted(projected.own.x.items())]
            kinds[f"{form} own y"] = [y for _, y in sorted(projected.own.y.items())]
    S = {o.unit.id: s for o, s in zip(result.objectives, result.S, strict=True)}
    return {k: torch.tensor(v, dtype=torch.float64) for k, v in kinds.items()} | {
        "S": torch.cat([S[u.id] for u in units])
    }


def error(result: Measured, reference: Measured) -> float:
    """Largest error over the largest unit, of any kind of number (method.md §5)."""
    ours, theirs = scalars(result), scalars(reference)
    return max(float((ours[k] - theirs[k]).abs().max() / theirs[k].abs().max()) for k in theirs)


@pytest.fixture(scope="module", params=BUILDS)
def build(request):
    return BUILDS[request.param]


@cache
def by_loop(build, *, dtype=torch.float64, budget=2**30, micro_batch=8, **of_batch):
    """What the other methods are compared with."""
    policy = tiny.policy(build(dtype))
    return measured(policy, tiny.batch(**of_batch), budget=budget, micro_batch=micro_batch)


@pytest.mark.parametrize("weighting", ["dr_grpo", "sequence", "per_token"])
@pytest.mark.parametrize("method", METHODS[1:])
def test_methods_agree_in_float64(build, method, weighting):
    policy, of_batch = tiny.policy(build(torch.float64)), {"weighting": weighting, "loss_type": "dapo"}
    assert error(measured(policy, tiny.batch(**of_batch), method), by_loop(build, **of_batch)) < 1e-10


@pytest.mark.parametrize("method", METHODS)
def test_methods_agree_in_float32(build, method):
    policy = tiny.policy(build(torch.float32))
    found = measured(policy, tiny.batch(), method, budget=0)
    assert error(found, by_loop(build, budget=0)) < 1e-4  # across backends
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        loop = by_loop(build, dtype=torch.float32, budget=0)
    assert error(measured(policy, tiny.batch(), method), loop) < 1e-5


def test_kept_vectors_and_second_pass_agree(build):
    policy = tiny.policy(build(torch.float64))
    kept, passed_twice = (
        measured(policy, tiny.batch(), budget=budget, steps=("adamw",)) for budget in (2**30, 0)
    )
    for form in ("score", "rao_blackwell"):
        assert kept.by_form[form].pairs is not None
        assert kept.by_form[form].own is not None
        assert passed_twice.by_form[form].pairs is None
    assert error(kept, passed_twice) < 1e-9


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("micro_batch", [1, 3, 8])
def test_micro_batch_size_moves_nothing(build, method, micro_batch):
    policy = tiny.policy(build(torch.float64))
    found = measured(policy, tiny.batch(), method, micro_batch=micro_batch)
    assert error(found, by_loop(build, micro_batch=100)) < 1e-10


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_padding_side_moves_nothing(build, dtype, monkeypatch):
    policy = tiny.policy(build(dtype))
    right = measured(policy, tiny.batch())
    layout = teacher_forcing.Layout.of

    def on_the_left(sequences, *, device, padding_side="right"):
        assert padding_side == "right"
        return layout(sequences, device=device, padding_side="left")

    monkeypatch.setattr(teacher_forcing.Layout, "of", on_the_left)
    left = measured(policy, tiny.batch())
    # RMSNorm and softmax compute in float32 whatever the dtype, so float64 ends near 1e-7 (traps.md).
    assert error(left, right) < (1e-5 if dtype == torch.float32 else 1e-6)


def test_prompt_order_moves_nothing(build):
    policy = tiny.policy(build(torch.float64))
    batch = tiny.batch()
    shuffled = dataclasses.replace(batch, units=batch.units[::-1])
    assert error(measured(policy, shuffled), measured(policy, batch)) < 1e-12


def test_a_block_is_the_mean_of_its_prompts():
    policy = tiny.policy(BUILDS["llama-lora"](torch.float64))
    prompts = tiny.batch(sizes=(4, 3, 4, 2))
    blocks = dataclasses.replace(
        prompts,
        units=tuple(
            dataclasses.replace(
                first, id=first.id + second.id, role=role, groups=first.groups + second.groups
            )
            for first, second, role in zip(prompts.units[::2], prompts.units[1::2], "EU", strict=True)
        ),
    )
    single, double = measured(policy, prompts), measured(policy, blocks)
    for form in ("score", "rao_blackwell"):
        expected = single.by_form[form].pairs.reshape(2, 2, 2, 2).mean(dim=(1, 3))
        torch.testing.assert_close(double.by_form[form].pairs, expected, rtol=1e-10, atol=0)
