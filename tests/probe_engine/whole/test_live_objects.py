"""`probe` and `doctor` on a caller's own model: what they say, and that they leave everything as it was."""

from __future__ import annotations

import random

import numpy as np
import pytest
import tiny
import torch
from oracles.twin import Prompt, Twin

from probe_engine import doctor, probe
from probe_engine.report import Report


def statuses(report: Report) -> dict[str, str]:
    """The worst status of each code."""
    order = ("ok", "skip", "info", "warn", "fail", "crash")
    worst: dict[str, str] = {}
    for f in report.findings:
        worst[f.code] = max(worst.get(f.code, "ok"), f.status, key=order.index)
    return worst


def failures(report: Report) -> set[str]:
    return {code for code, status in statuses(report).items() if status in ("fail", "crash")}


@pytest.mark.parametrize("method", ["fused", "loop", "alpha", "alpha-vjp"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_everything_of_the_caller_is_bit_identical_afterwards(method: str, dtype: torch.dtype) -> None:
    model = tiny.cast(tiny.with_lora(tiny.model("llama"), lora_dropout=0.1), dtype)
    model.train()
    optimizer = tiny.optimizer(model)
    for p in model.parameters():
        if p.requires_grad:
            p.grad = torch.randn(p.shape).to(dtype)

    def everything() -> list[object]:
        return [
            *(p.detach().clone() for p in model.parameters()),
            *(p.grad.clone() for p in model.parameters() if p.grad is not None),
            *(t.clone() for s in optimizer.state.values() for t in s.values()),
            torch.get_rng_state(),
            torch.tensor([m.training for m in model.modules()]),
            torch.tensor([p.requires_grad for p in model.parameters()]),
            torch.tensor([len(m._forward_hooks) for m in model.modules()]),
            torch.tensor([len(m._forward_pre_hooks) for m in model.modules()]),
        ]

    python_state, numpy_state = random.getstate(), np.random.get_state()[1].copy()
    before = everything()
    report = probe(model, optimizer=optimizer, batch=tiny.batch(), method=method, micro_batch=3)
    after = everything()
    assert report.run.status == "complete"
    assert report.verdict is not None
    assert len(before) == len(after)
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert random.getstate() == python_state
    assert np.array_equal(np.random.get_state()[1], numpy_state)


def test_a_live_probe_agrees_with_the_twin_in_float64() -> None:
    model = tiny.cast(tiny.with_lora(tiny.model("llama")), torch.float64)
    optimizer = tiny.optimizer(model, lr=1e-4)
    batch = tiny.batch(loss_type="grpo", weighting="per_token")
    report = probe(model, optimizer=optimizer, batch=batch, dtype="float64")
    parameters = [p for p in model.parameters() if p.requires_grad]
    v_hat = [optimizer.state[p]["exp_avg_sq"] / (1 - 0.99**5) for p in parameters]
    twin = Twin(
        model,
        parameters,
        torch.cat([(1 / (v.sqrt() + 1e-8)).flatten() for v in v_hat]),
        eta=1e-4,
        l_max=7,
        loss_type="grpo",
        weighting="per_token",
        prompts=Prompt.all_of(batch),
    ).measure()
    assert report.estimates.u_statistic is not None
    assert report.estimates.split is not None
    for name, value in twin.u_statistic().items():
        assert getattr(report.estimates.u_statistic, name) == pytest.approx(value, rel=1e-8)
    for name, value in twin.split().items():
        assert getattr(report.estimates.split, name) == pytest.approx(value, rel=1e-8)
    held_out = twin.realized(twin.of("U"), twin.of("E"))
    rows = {r.estimator: r for r in report.realized if (r.step, r.pairing) == ("preconditioned", "held_out")}
    assert rows["matched"].delta_h == pytest.approx(held_out["matched"]["delta_h"], rel=1e-6)
    assert rows["snis"].se == pytest.approx(held_out["snis"]["se"], rel=1e-6)


def test_prediction_and_measurement_meet_as_the_step_shrinks() -> None:
    """matched ΔĤ / prediction → 1: derivative, mapping and step belong together (method.md (15))."""
    model = tiny.cast(tiny.with_lora(tiny.model("llama")), torch.float64)
    gaps = []
    for lr in (1e-4, 1e-5, 1e-6, 1e-7):
        report = probe(model, optimizer=tiny.optimizer(model), batch=tiny.batch(), lr=lr)
        rows = [r for r in report.realized if r.estimator == "matched"]
        assert {(r.step, r.pairing) for r in rows} == {
            (step, pairing) for step in ("preconditioned", "adamw") for pairing in ("held_out", "same_batch")
        }
        gaps.append(max(abs(r.delta_h / r.predicted - 1) for r in rows))
    assert gaps == sorted(gaps, reverse=True)
    assert gaps[-1] < 1e-3


def test_a_healthy_model_has_no_failure_and_the_whole_panel() -> None:
    model = tiny.with_lora(tiny.model("llama"))
    report = doctor(model, optimizer=tiny.optimizer(model), batch=tiny.batch(sizes=(3,) * 8))
    assert failures(report) == set()
    panel = report.gradient_flow
    assert panel is not None
    n = panel.registry
    assert n == 12
    assert (panel.x_non_none, panel.x_non_zero, panel.y_non_none, panel.y_non_zero) == (n, n, n, n)
    assert (panel.matched, panel.missing, panel.stray, panel.fallbacks) == (n, 0, 0, 0)
    assert panel.logits_grad_fn is not None
    assert panel.dl_ds_nonzero
    assert panel.reaches_embeddings


def test_doctor_without_a_batch_makes_one() -> None:
    model = tiny.model("gpt2")
    report = doctor(model, optimizer=tiny.optimizer(model))
    assert report.run.status == "complete"
    assert failures(report) == set()


def test_outer_inference_mode_is_named() -> None:
    model = tiny.with_lora(tiny.model("llama"))
    with torch.inference_mode():
        report = doctor(model, optimizer=tiny.optimizer(model), batch=tiny.batch())
    assert failures(report) == {"GRAD001"}
    assert statuses(report)["GRAD002"] == "skip"
    assert report.run.exit_code == 1


def test_parameters_born_under_inference_mode_are_named() -> None:
    with torch.inference_mode():
        model = tiny.model("llama")
    report = doctor(model, batch=tiny.batch())
    assert "GRAD001" in failures(report)
    named = next(f for f in report.findings if f.code == "GRAD001")
    assert named.evidence["tensors"][0] == "model.embed_tokens.weight"


def test_outer_no_grad_is_named() -> None:
    model = tiny.with_lora(tiny.model("llama"))
    with torch.no_grad():
        report = doctor(model, optimizer=tiny.optimizer(model), batch=tiny.batch())
    assert failures(report) == {"GRAD002"}


def test_a_frozen_model_is_named() -> None:
    model = tiny.with_lora(tiny.model("llama"))
    optimizer = tiny.optimizer(model)
    model.requires_grad_(False)
    report = doctor(model, optimizer=optimizer, batch=tiny.batch())
    assert "GRAD003" in failures(report)
    assert statuses(report)["GRAD004"] == "skip"
    message = next(f.message for f in report.findings if f.code == "GRAD003")
    assert "no parameter requires grad" in message


def test_a_module_that_detaches_is_seen() -> None:
    model = tiny.with_lora(tiny.model("llama"))
    layer = model.get_base_model().model.layers[0]
    layer.register_forward_hook(lambda _m, _i, out: (out[0] if isinstance(out, tuple) else out).detach())
    report = doctor(model, optimizer=tiny.optimizer(model), batch=tiny.batch())
    assert {"GRAD006", "GRAD007", "GRAD008"} <= failures(report)
    x = next(f for f in report.findings if f.code == "GRAD007")
    assert x.value == 6
    assert all("layers.0" in name for name in x.evidence["parameters"])


def test_s_cut_from_the_logits_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    from probe_engine.model import cut_graph

    monkeypatch.setattr(cut_graph, "sequence_log_probs", lambda t: t.detach().double().sum(-1))
    model = tiny.with_lora(tiny.model("llama"))
    report = doctor(model, optimizer=tiny.optimizer(model), batch=tiny.batch())
    assert failures(report) == {"GRAD004"}


def test_zero_weights_are_named_and_not_taken_for_a_dead_path() -> None:
    import dataclasses

    model = tiny.with_lora(tiny.model("llama"))
    batch = tiny.batch()
    flat = tuple(
        dataclasses.replace(
            u,
            groups=tuple(
                dataclasses.replace(
                    g, responses=tuple(dataclasses.replace(r, advantage=0.0) for r in g.responses)
                )
                for g in u.groups
            ),
        )
        for u in batch.units
    )
    report = doctor(model, optimizer=tiny.optimizer(model), batch=dataclasses.replace(batch, units=flat))
    assert failures(report) == {"GRAD005", "ROLL003"}
    assert next(f.value for f in report.findings if f.code == "GRAD005") == "Y"


def test_a_dead_parameter_is_named_and_a_fresh_adapter_is_not() -> None:
    dead = tiny.with_lora(tiny.model("llama"))
    for name, p in dead.named_parameters():
        if "layers.1" in name and "q_proj.lora_A" in name:
            p.data.zero_()  # its lora_B then gets a gradient of exactly 0
    report = doctor(dead, optimizer=tiny.optimizer(dead), batch=tiny.batch())
    assert failures(report) == {"GRAD009"}
    evidence = next(f.evidence for f in report.findings if f.code == "GRAD009")
    assert all("layers.1.self_attn.q_proj.lora_B" in name for name in evidence["parameters"])

    fresh = tiny.with_lora(tiny.model("llama"))
    for name, p in fresh.named_parameters():
        if "lora_B" in name:
            p.data.zero_()
    assert "GRAD009" not in failures(doctor(fresh, optimizer=tiny.optimizer(fresh), batch=tiny.batch()))


def test_a_model_rewrapped_after_the_registry_was_built_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    from probe_engine import execution

    model = tiny.with_lora(tiny.model("llama"))
    real = execution.adopt

    def adopt_then_rewrap(*args, **live):
        policy = yield from real(*args, **live)
        for module in policy.model.modules():
            for name, p in list(module.named_parameters(recurse=False)):
                if "layers.0" not in name and p.requires_grad and module is last_adapter(policy.model):
                    setattr(module, name, torch.nn.Parameter(p.detach().clone()))
        return policy

    monkeypatch.setattr(execution, "adopt", adopt_then_rewrap)
    report = doctor(model, optimizer=tiny.optimizer(model), batch=tiny.batch())
    assert "GRAD010" in failures(report)
    assert next(f.value for f in report.findings if f.code == "GRAD010") == "11 matched, 1 missing, 1 stray"


def last_adapter(model: torch.nn.Module) -> torch.nn.Module:
    return [m for n, m in model.named_modules() if n.endswith("lora_B.default")][-1]


def test_a_missing_optimizer_is_loud_and_the_probe_goes_on_with_an_lr() -> None:
    model = tiny.with_lora(tiny.model("llama"))
    report = probe(model, batch=tiny.batch(), lr=1e-4)
    assert statuses(report)["OPT001"] == "warn"
    assert report.gradient_flow is not None
    assert report.gradient_flow.fallbacks == report.gradient_flow.registry
    assert report.verdict is not None

    without = probe(model, batch=tiny.batch())
    assert without.run.exit_code == 3
    assert without.run.status == "partial"
    assert all(u.x_norm for u in without.units)


def test_learning_rate_0_gives_a_change_of_0() -> None:
    model = tiny.with_lora(tiny.model("llama"))
    report = probe(model, optimizer=tiny.optimizer(model, lr=0.0), batch=tiny.batch())
    assert statuses(report)["OPT007"] == "warn"
    assert report.estimates.u_statistic is not None
    assert report.estimates.u_statistic.delta_h1 == 0
    assert all(abs(row.delta_h) < 1e-12 for row in report.realized)
    assert report.verdict is not None
    assert report.verdict.status == "inconclusive"


def test_native_rows_and_trl_tensors_are_batches_too() -> None:
    model = tiny.with_lora(tiny.model("llama"))
    rows = [
        {"prompt_tokens": [3 + n, 4], "prompt": "", "response_tokens": [5 + g, 6, n], "reward": float(g)}
        for n in range(4)
        for g in range(3)
    ]
    report = probe(model, optimizer=tiny.optimizer(model), batch=rows)
    assert [u.G for u in report.units] == [3] * 4

    tensors = {
        "prompt_ids": torch.tensor([r["prompt_tokens"] for r in rows]),
        "prompt_mask": torch.ones(12, 2, dtype=torch.long),
        "completion_ids": torch.tensor([r["response_tokens"] for r in rows]),
        "completion_mask": torch.ones(12, 3, dtype=torch.long),
        "advantages": torch.tensor([(g - 1.0) / (1 + 1e-4) for _ in range(4) for g in range(3)]),
    }
    same = probe(model, optimizer=tiny.optimizer(model), batch=tensors)
    assert [u.x_norm for u in same.units] == [u.x_norm for u in report.units]
    assert [u.y_norm for u in same.units] == pytest.approx([u.y_norm for u in report.units], rel=1e-6)
