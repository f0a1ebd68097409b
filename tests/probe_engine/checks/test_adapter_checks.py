"""PEFT findings: each state of an adapter that keeps it from training, and healthy ones of every kind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import tiny
import torch
from peft import IA3Config, LoraConfig, VeraConfig, get_peft_model
from torch import nn

from probe_engine import doctor
from probe_engine.checks.adapter import adapter_findings
from probe_engine.checks.checkpoint import number_format
from probe_engine.registry import ParameterRegistry
from probe_engine.report import Finding, Report

FIRED = ("warn", "fail", "crash")


def findings(model: nn.Module) -> dict[str, Finding]:
    return {f.code: f for f in adapter_findings(model, ParameterRegistry.of(model).trainable)}


def roots(report: Report) -> set[str]:
    """What fired and stands for itself."""
    return {f.code for f in report.findings if f.status in FIRED and not f.cause}


def second_adapter(model: Any) -> None:
    """`other` is active, `default` is what trains."""
    model.add_adapter("other", LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM"))
    model.set_adapter("other")
    for name, p in model.named_parameters():
        p.requires_grad_("lora" in name and ".default" in name)


def no_such_adapter(model: Any) -> None:
    for module in model.modules():
        if hasattr(module, "_active_adapter"):
            module._active_adapter = "elsewhere"


FAULTS: dict[str, tuple[str, Callable[[Any], object]]] = {
    "frozen": ("PEFT001", lambda m: m.requires_grad_(False)),
    "disabled": ("PEFT002", lambda m: m.base_model.disable_adapter_layers()),
    "disabled in one layer": (
        "PEFT002",
        lambda m: m.get_base_model().model.layers[1].self_attn.q_proj.enable_adapters(False),
    ),
    "none is active": ("PEFT002", no_such_adapter),
    "merged": ("PEFT003", lambda m: m.merge_adapter()),
    "another is active": ("PEFT004", second_adapter),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_each_state_is_named_alone_and_the_rest_follows_from_it(fault: str) -> None:
    code, inject = FAULTS[fault]
    model = tiny.with_lora(tiny.model())
    optimizer = tiny.optimizer(model)  # as a script does: built once, before the state is changed
    inject(model)
    found = findings(model)
    assert {c for c, f in found.items() if f.status in FIRED} == {code}
    assert found[code].status == "fail"
    report = doctor(model, optimizer=optimizer, batch=tiny.batch(sizes=(3,) * 8))
    assert roots(report) == {code}
    fired = [f.code for f in report.findings if f.status in FIRED]
    assert fired[0] == code, "the cause comes first"
    assert ("GRAD003" in fired) == (fault != "disabled in one layer")


def test_inside_disable_adapter_nothing_is_changed_for_good() -> None:
    model = tiny.with_lora(tiny.model())
    with model.disable_adapter():
        assert findings(model)["PEFT002"].status == "fail"
        assert findings(model)["PEFT001"].status == "skip"
    assert {f.status for f in findings(model).values()} == {"ok"}


def test_a_head_saved_beside_a_tied_embedding_is_told() -> None:
    untied = tiny.with_lora(tiny.model("gpt2"), modules_to_save=["lm_head"])
    assert findings(untied)["PEFT005"].status == "info"
    tied = tiny.with_lora(tiny.model("gpt2"), modules_to_save=["lm_head"], ensure_weight_tying=True)
    assert findings(tied)["PEFT005"].status == "ok"
    never = tiny.with_lora(tiny.model("llama"), modules_to_save=["lm_head"])
    assert findings(never)["PEFT005"].status == "ok"


def test_a_fresh_adapter_is_told_and_one_weight_ends_it() -> None:
    model = tiny.with_lora(tiny.model())
    b = [p for name, p in model.named_parameters() if "lora_B" in name]
    for p in b:
        p.data.zero_()
    assert findings(model)["PEFT006"].status == "info"
    assert not roots(doctor(model, optimizer=tiny.optimizer(model), batch=tiny.batch(sizes=(3,) * 8)))
    b[-1].data.view(-1)[0] = 1e-6
    assert findings(model)["PEFT006"].status == "ok"


def test_trainable_parameters_of_the_base_are_named() -> None:
    model = tiny.with_lora(tiny.model())
    model.get_base_model().model.norm.weight.requires_grad_(True)
    found = findings(model)["PEFT007"]
    assert (found.status, found.value) == ("info", 1)
    assert found.evidence["parameters"] == ["base_model.model.model.norm.weight"]


def test_a_frozen_adapter_under_a_trained_head_is_no_failure() -> None:
    model = tiny.with_lora(tiny.model())
    model.requires_grad_(False)
    model.get_base_model().lm_head.weight.requires_grad_(True)
    assert findings(model)["PEFT001"].status == "info"


def test_without_an_adapter_there_is_nothing_to_say() -> None:
    assert not findings(tiny.model())


@pytest.mark.parametrize(
    "adapted",
    [
        lambda: tiny.with_lora(tiny.model()),
        lambda: tiny.with_lora(tiny.model(), use_dora=True),
        lambda: tiny.with_lora(tiny.model(), modules_to_save=["lm_head"]),
        lambda: tiny.with_lora(tiny.model(), target_modules=["q_proj", "embed_tokens"]),
        lambda: tiny.with_lora(tiny.model("qwen2"), bias="all"),
        lambda: tiny.with_lora(tiny.model("qwen2"), bias="lora_only"),
        lambda: tiny.with_lora(tiny.model("gpt2")),
        lambda: tiny.with_lora(tiny.model(), trainable_token_indices=[1, 2]),
        lambda: get_peft_model(
            tiny.model(),
            IA3Config(
                target_modules=["k_proj", "down_proj"],
                feedforward_modules=["down_proj"],
                task_type="CAUSAL_LM",
            ),
        ),
        lambda: get_peft_model(
            tiny.model(), VeraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM")
        ),
    ],
    ids=["lora", "dora", "saved head", "embedding", "biases", "lora biases", "gpt2", "tokens", "ia3", "vera"],
)
def test_healthy_adapters_of_every_kind_are_ok(adapted: Callable[[], nn.Module]) -> None:
    found = findings(adapted())
    assert set(found) == {f"PEFT00{i}" for i in range(1, 8)}
    assert {c: f.message for c, f in found.items() if f.status != "ok"} == {}


def test_quantised_weights_are_told_with_their_format() -> None:
    plain = {"a": torch.zeros(2), "b": torch.zeros(2, dtype=torch.bfloat16)}
    assert number_format(plain.items()).status == "ok"
    quantised = plain | {
        "c": torch.zeros(2, dtype=torch.uint8),
        "d": torch.zeros(2, dtype=torch.float8_e4m3fn),
    }
    found = number_format(quantised.items())
    assert (found.code, found.status, found.value) == ("CKPT009", "info", 2)
    assert found.evidence == {"formats": "uint8, float8_e4m3fn", "parameters": ["c", "d"]}


def test_an_optimizer_of_the_objects_before_a_reload_is_a_cause() -> None:
    model = tiny.with_lora(tiny.model())
    optimizer = tiny.optimizer(model)
    stale = model.get_base_model().model.layers[0].self_attn.q_proj.lora_A["default"]
    stale.weight = nn.Parameter(stale.weight.detach().clone())
    report = doctor(model, optimizer=optimizer, batch=tiny.batch(sizes=(3,) * 8))
    assert roots(report) == {"OPT009"}
    assert [f.cause for f in report.findings if f.code == "OPT004" and f.status == "warn"] == ["OPT009"]

    every = tiny.optimizer(tiny.with_lora(tiny.model()))
    report = doctor(model, optimizer=every, batch=tiny.batch(sizes=(3,) * 8))
    assert roots(report) == {"OPT009"}
