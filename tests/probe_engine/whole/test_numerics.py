"""What the run does about numbers that depend on how they are computed."""

from __future__ import annotations

import dataclasses
from typing import Any

import msgspec
import pytest
import tiny
import torch
from torch import Tensor, nn

from probe_engine import doctor, probe
from probe_engine.report import Finding, Report

FIRED = ("warn", "fail", "crash")
CLAMP = 0.3


def clamped(model: Any) -> None:
    """Lets the gradient of a step pass and clamps that of S itself, which `fused` asks for."""

    def clamp(_module: nn.Module, _args: object, output: Tensor) -> None:
        if output.requires_grad:
            output.register_hook(lambda gradient: gradient.clamp(-CLAMP, CLAMP))

    model.get_base_model().model.layers[1].mlp.register_forward_hook(clamp)


def adapted() -> Any:
    return tiny.with_lora(tiny.model())


def one(report: Report, code: str) -> Finding:
    (found,) = (f for f in report.findings if f.code == code)
    return found


def test_where_the_method_disagrees_the_run_goes_on_with_loop() -> None:
    reports = []
    for method in ("fused", "loop"):
        model = adapted()
        clamped(model)
        reports.append(
            probe(model, optimizer=tiny.optimizer(model), batch=tiny.batch(), method=method, device="cpu")
        )
    fast, plain = reports
    assert one(fast, "GRAD017").status == "warn"
    assert fast.method is not None
    assert fast.method.name == "loop"
    assert fast.config["method"].value == "fused"
    assert plain.estimates.u_statistic is not None
    assert msgspec.to_builtins(fast.estimates) == msgspec.to_builtins(plain.estimates)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_unit_is_drawn_by_the_seed(seed: int) -> None:
    drawn = {
        one(
            doctor(model, optimizer=tiny.optimizer(model), batch=tiny.batch(), method="alpha", seed=seed),
            "GRAD017",
        ).message
        for model in (adapted(), adapted())
    }
    assert len(drawn) == 1


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("method", ["loop", "alpha"])
def test_healthy_models_are_quiet(method: str, dtype: torch.dtype) -> None:
    model = tiny.cast(adapted(), dtype)
    report = doctor(model, optimizer=tiny.optimizer(model), batch=tiny.batch(), method=method)
    fired = {f.code for f in report.findings if f.status in FIRED}
    assert not fired & {"GRAD017", "GRAD018", "GRAD019", "GRAD020"}


def test_the_remedies_of_small_gradients_are_a_wider_dtype_and_fused() -> None:
    found = {}
    for dtype in (torch.float16, torch.bfloat16, torch.float32):
        model = tiny.cast(adapted(), dtype)
        batch = dataclasses.replace(tiny.batch(), max_completion_length=2**14)
        for method in ("loop", "fused"):
            report = doctor(model, optimizer=tiny.optimizer(model), batch=batch, method=method)
            found[dtype, method] = one(report, "GRAD018").status
    assert [key for key, status in found.items() if status == "warn"] == [(torch.float16, "loop")]
    assert set(found.values()) == {"warn", "ok"}


def test_one_sequence_at_a_time_makes_the_probes_numbers_right_again() -> None:
    """The remedy of GRAD019 and GRAD020."""

    def batched(micro_batch: int) -> Report:
        model = adapted()
        mlp = model.get_base_model().model.layers[0].mlp
        mlp.register_forward_hook(lambda _module, _args, out: out - out.mean((0, 1), keepdim=True))
        return probe(model, optimizer=tiny.optimizer(model), batch=tiny.batch(), micro_batch=micro_batch)

    def scores(report: Report) -> list[float]:
        return [s for unit in report.units for s in unit.S if s is not None]

    together, alone, pairs = batched(8), batched(1), batched(2)
    assert one(together, "GRAD020").status == "warn"
    assert max(abs(a - b) for a, b in zip(scores(together), scores(pairs), strict=True)) > 1e-2

    healthy = adapted()
    mlp = healthy.get_base_model().model.layers[0].mlp
    mlp.register_forward_hook(lambda _module, _args, out: out - out.mean(1, keepdim=True))
    expected = probe(healthy, optimizer=tiny.optimizer(healthy), batch=tiny.batch(), micro_batch=1)
    torch.testing.assert_close(torch.tensor(scores(alone)), torch.tensor(scores(expected)), rtol=0, atol=1e-6)
