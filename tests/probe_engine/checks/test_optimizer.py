"""OPT findings, on states from files and live optimizers alike."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest
import tiny
import torch
from trl import GRPOConfig

from probe_engine.checks.optimizer import (
    learning_rate,
    modelled_step,
    optimizer_findings,
    optimizer_info,
    parameters_with_state,
)
from probe_engine.registry import ParameterRegistry
from probe_engine.report import Finding
from probe_engine.sources.checkpoints.adam_state import AdamReading
from probe_engine.sources.checkpoints.live import read_optimizer

MODEL = tiny.model("llama")
REGISTRY = ParameterRegistry.of(MODEL).trainable
DEFAULTS = {field.name: field.default for field in fields(GRPOConfig)} | {"loss_type": "dr_grpo"}


def reading(edit: Any = None) -> AdamReading:
    """Of a live AdamW after 5 steps, edited."""
    optimizer = tiny.optimizer(MODEL)
    if edit is not None:
        edit(optimizer)
    return read_optimizer(optimizer, REGISTRY)


def states(of: torch.optim.Optimizer) -> list[dict[str, Any]]:
    return [of.state[p] for p in REGISTRY.parameters]


def firing(found: list[Finding]) -> dict[str, str]:
    return {f.code: f.status for f in found if f.status in ("warn", "fail")}


def test_a_healthy_state_is_ok_in_every_line() -> None:
    found = optimizer_findings(reading(), REGISTRY)
    assert [f.code for f in found] == ["OPT009", *(f"OPT00{i}" for i in range(1, 8))]
    assert {f.status for f in found} == {"ok"}
    assert optimizer_info(REGISTRY, reading().state).matched == len(REGISTRY)


@pytest.mark.parametrize(
    ("edit", "expected"),
    [
        (lambda o: o.state.clear(), {"OPT001": "warn"}),
        (lambda o: states(o)[0].update(max_exp_avg_sq=1), {"OPT003": "fail"}),
        (
            lambda o: states(o)[0].update(max_exp_avg_sq=-torch.ones_like(states(o)[0]["exp_avg_sq"])),
            {"OPT005": "fail"},
        ),
        (lambda o: states(o)[0].update(exp_avg_sq=torch.zeros(3)), {"OPT003": "fail"}),
        (lambda o: o.state.pop(REGISTRY.parameters[2]), {"OPT004": "warn"}),
        (lambda o: states(o)[1]["exp_avg_sq"].view(-1)[0].fill_(-1), {"OPT005": "fail"}),
        (lambda o: states(o)[1]["exp_avg"].view(-1)[0].fill_(float("nan")), {"OPT005": "fail"}),
        (lambda o: states(o)[1].update(step=torch.tensor(0.0)), {"OPT006": "warn"}),
        (lambda o: states(o)[1].pop("step"), {"OPT006": "warn"}),
        (lambda o: states(o)[1].update(step=torch.tensor(3.0)), {"OPT006": "warn"}),
        (lambda o: o.param_groups[0].update(lr=0.0), {"OPT007": "warn"}),
    ],
)
def test_each_fault_fires_exactly_its_code(edit: Any, expected: dict[str, str]) -> None:
    assert firing(optimizer_findings(reading(edit), REGISTRY)) == expected


def test_checks_that_wait_for_a_state_say_for_what() -> None:
    found = optimizer_findings(reading(lambda o: o.state.clear()), REGISTRY)
    assert {f.message for f in found if f.status == "skip"} == {"waits for OPT001"}


def test_fallbacks_are_counted_and_named() -> None:
    state = reading().state
    missing = REGISTRY.names[4]
    partial = replace(state, moments={n: m for n, m in state.moments.items() if n != missing})
    found = parameters_with_state(REGISTRY, partial)
    assert (found.value, found.evidence["parameters"]) == (1, [missing])
    assert f"1 of {len(REGISTRY)}" in found.message
    assert parameters_with_state(REGISTRY, partial, explained=[missing]).status == "info"
    assert optimizer_info(REGISTRY, partial).fallbacks == 1


def test_an_unknown_learning_rate_is_no_finding() -> None:
    assert learning_rate(replace(reading().state, lr=None)).status == "skip"


class TestModelledStep:
    """OPT011: what the trainer's loss has beside Σ A·κ·S."""

    def test_trls_defaults_are_modelled(self) -> None:
        assert modelled_step(MODEL, DEFAULTS).status == "ok"

    def test_unknown_arguments_are_told(self) -> None:
        assert modelled_step(MODEL, {}).status == "info"

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("beta", 0.04),
            ("entropy_coef", 1e-3),
            ("use_adaptive_entropy", True),
            ("num_iterations", 2),
            ("importance_sampling_level", "sequence"),
            ("loss_type", "cispo"),
            ("mask_truncated_completions", True),
            ("top_entropy_quantile", 0.2),
            ("off_policy_mask_threshold", 0.5),
            ("temperature", 0.7),
        ],
    )
    def test_each_unmodelled_term_is_named_with_its_value(self, name: str, value: Any) -> None:
        assert name in DEFAULTS, "the installed trl has no such argument"
        found = modelled_step(MODEL, DEFAULTS | {name: value})
        assert found.status == "warn"
        assert found.evidence == {name: value}
        assert f"{name} = {value}" in found.message

    def test_the_samplers_importance_correction_matters_with_vllm_only(self) -> None:
        found = modelled_step(MODEL, DEFAULTS | {"use_vllm": True})
        assert found.evidence == {"vllm_importance_sampling_correction": True}

    def test_several_steps_on_one_generation(self) -> None:
        several = {"steps_per_generation": 4, "gradient_accumulation_steps": 2}
        assert modelled_step(MODEL, DEFAULTS | several).evidence == {"steps_per_generation": 4}

    def test_a_temperature_that_the_probe_applies_too_is_modelled(self) -> None:
        found = modelled_step(MODEL, DEFAULTS | {"temperature": 0.7}, policy_temperature=0.7)
        assert found.status == "ok"

    def test_learning_rates_by_group(self) -> None:
        assert modelled_step(MODEL, DEFAULTS, (1e-3, 1e-4)).status == "warn"

    def test_dropout(self) -> None:
        lora = tiny.with_lora(tiny.model(), lora_dropout=0.05)
        assert modelled_step(lora, DEFAULTS).evidence == {"dropout": 0.05}
        assert modelled_step(lora, DEFAULTS | {"disable_dropout": True}).status == "ok"
        attention = tiny.model(attention_dropout=0.1)
        assert modelled_step(attention, DEFAULTS | {"disable_dropout": True}).evidence == {"dropout": 0.1}

    def test_an_unmodelled_loss_type_says_which_weights_are_used(self) -> None:
        assert "dr_grpo" in modelled_step(MODEL, DEFAULTS | {"loss_type": "sapo"}).message
