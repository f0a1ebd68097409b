"""GRAD021 on real models: 1 where autograd tells the truth, named where a stop-gradient hides something."""

from __future__ import annotations

from collections import Counter

import pytest
import tiny
import torch
from torch import nn

from probe_engine import doctor, probe
from probe_engine.checks.derivative import derivative
from probe_engine.model.preconditioner import preconditioner
from probe_engine.model.preserving import preserved
from probe_engine.model.unit_gradients import UnitObjective, objectives, unit_gradients
from probe_engine.report import DerivativeTest, Finding, Report
from probe_engine.stages import derivative as stage
from probe_engine.stages.derivative import derivative_test

BATCH = tiny.batch(sizes=(4,) * 8)


def examined(model: nn.Module, seed: int = 2) -> DerivativeTest | None:
    policy = tiny.policy(model)
    units = excerpts(seed)
    method = unit_gradients("loop", model, policy.registry, micro_batch=16, temperature=1.0)
    with preserved(model):
        return derivative_test(policy, units, method, preconditioner(policy.registry, policy.optimizer))


def excerpts(seed: int = 2) -> list[UnitObjective]:
    return [unit.brief() for unit in objectives(tiny.batch(sizes=(4,) * 8, seed=seed))[:2]]


def one(report: Report, code: str) -> Finding:
    (found,) = (f for f in report.findings if f.code == code)
    return found


@pytest.mark.parametrize("adapter", ["full", "lora"])
@pytest.mark.parametrize("kind", ["llama", "gpt2", "qwen2"])
def test_a_healthy_model_is_within_three_thousandths(kind, adapter) -> None:
    model = tiny.model(kind)
    found = examined(tiny.with_lora(model) if adapter == "lora" else model)
    assert found is not None
    assert found.along_x == pytest.approx(1, abs=1e-3)
    assert found.along_step == pytest.approx(1, abs=3e-3)
    assert found.along_step_se < 3e-3
    assert derivative(found).status == "ok"


def test_bf16_weights_are_tried_in_float32_and_come_back() -> None:
    model = tiny.model("llama", dtype=torch.bfloat16)
    before = [p.detach().clone() for p in model.parameters()]
    found = examined(model)
    assert found is not None
    assert found.along_x == pytest.approx(1, abs=1e-3)
    for p, old in zip(model.parameters(), before, strict=True):
        assert p.dtype == torch.bfloat16
        assert torch.equal(p, old)


@pytest.mark.parametrize("kind", ["llama", "gpt2", "qwen2"])
def test_dora_is_named_with_both_factors(kind) -> None:
    model = tiny.with_lora(tiny.model(kind), use_dora=True)
    before = [p.detach().clone() for p in model.parameters()]
    report = doctor(model, optimizer=tiny.optimizer(model), batch=BATCH)
    found, test = one(report, "GRAD021"), report.gradient_flow.derivative
    assert found.status == "warn"
    assert not found.cause
    assert abs(test.along_x - 1) > 0.003
    assert f"{test.along_x:.5g} along X̄" in found.message
    assert f"{test.along_step:.4g} ± {test.along_step_se:.2g} along Δθ" in found.message
    assert all(torch.equal(p, old) for p, old in zip(model.parameters(), before, strict=True))


def test_a_tied_row_that_the_embedding_gives_no_gradient_is_named() -> None:
    """padding_idx leaves the embedding's part out of the row's gradient, though its token is a real one. Of
    most rows that part is too small to be told from rounding."""
    model = tiny.model("llama", tie_word_embeddings=True)
    assert derivative(examined(model)).status == "ok"
    read = Counter(t for unit in excerpts() for s in unit.sequences for t in s.prompt + s.response)
    said = set()
    for token, _ in read.most_common(6):
        model.model.embed_tokens.padding_idx = token
        said.add(derivative(examined(model)).status)
    assert "warn" in said


def test_a_verdict_on_a_gradient_that_is_none_is_unreliable() -> None:
    model = tiny.with_lora(tiny.model("llama"), use_dora=True)
    report = probe(model, optimizer=tiny.optimizer(model, lr=1e-5), batch=BATCH, ignore=("OPT",))
    assert report.verdict.status == "unreliable"
    assert "not the derivative" in report.verdict.reason
    assert f"{report.gradient_flow.derivative.along_x:.5g} along X̄" in report.verdict.reason


def test_the_callers_graph_may_still_go_backward() -> None:
    """The doctor steps the weights and puts them back: a loss that the caller made before stays usable."""
    model = tiny.with_lora(tiny.model("llama"))
    optimizer = tiny.optimizer(model)
    loss = model(input_ids=torch.arange(8)[None]).logits.square().sum()
    doctor(model, optimizer=optimizer, batch=BATCH)
    loss.backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)


class Steps(nn.Module):
    """A forward with jumps too small to matter to anything but a derivative, as top-k routing has them."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, *args, **kwargs):
        out = self.inner(*args, **kwargs)
        return out + (torch.frac(out.detach() * 1e4) - 0.5).round() * 0.003


def test_jumps_of_the_forward_are_no_stop_gradient() -> None:
    model = tiny.model("llama")
    model.model.layers[0].mlp = Steps(model.model.layers[0].mlp)
    found = derivative(examined(model))
    assert found.status in ("skip", "ok")


def test_it_waits_for_what_makes_it_meaningless() -> None:
    model = tiny.with_lora(tiny.model("llama"))
    mlp = model.get_base_model().model.layers[1].mlp
    mlp.register_forward_hook(lambda _m, _i, out: nn.functional.dropout(out, 0.1))
    found = one(doctor(model, optimizer=tiny.optimizer(model), batch=BATCH), "GRAD021")
    assert (found.status, found.message) == ("skip", "waits for GRAD015")


@pytest.mark.parametrize(
    ("along_x", "along_step", "status"),
    [
        (1.0029, 1.0, "ok"),
        (1.0031, 1.0, "warn"),
        (0.9969, None, "warn"),
        (1.0, 1.0099, "ok"),
        (1.0, 1.011, "warn"),
        (None, 1.0, "ok"),
        (None, 0.9, "warn"),
        (None, None, "skip"),
    ],
)
def test_grad021_at_its_borders(along_x, along_step, status) -> None:
    test = DerivativeTest(along_x=along_x, along_step=along_step, along_step_se=0.001, units=4)
    assert derivative(test).status == status


def test_no_direction_no_test() -> None:
    assert derivative(None).status == "skip"


@pytest.mark.parametrize("adapter", ["full", "lora"])
def test_a_ratio_well_inside_its_tolerance_is_not_looked_at_again(adapter, monkeypatch) -> None:
    """Of each direction a step ahead and one back, and as many more as the length of ε is looked for."""
    taken: list[float] = []
    plain = stage.virtual_step

    def counted(registry, v):
        taken.append(v.norm())
        return plain(registry, v)

    monkeypatch.setattr(stage, "virtual_step", counted)
    model = tiny.model("llama")
    found = examined(tiny.with_lora(model) if adapter == "lora" else model)
    assert found is not None
    assert derivative(found).status == "ok"
    assert len(taken) <= 2 * (stage.GUESSES + 1)
