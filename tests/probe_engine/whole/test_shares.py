"""Full finetuning: however few rows of a parameter are gone through at a time, the report is the same."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
import tiny
import torch
from torch import nn

from probe_engine import Report, probe, vectors
from probe_engine.model.unit_gradients.fused import reverse

PARTS = ("gradient_flow", "estimates", "realized", "self_influence", "units")


def report(model: nn.Module, budget: str) -> Report:
    return probe(
        model,
        optimizer=tiny.optimizer(model),
        batch=tiny.batch(sizes=(4, 4, 4, 4)),
        memory_budget=budget,
        steps=("adamw", "preconditioned"),
        fail_on="never",
    )


def leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict | list | tuple):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(inner, f"{path}.{key}")
    else:
        yield path, value


@pytest.mark.parametrize("budget", ["0B", "1GiB"])
def test_the_report_is_that_of_whole_parameters(budget: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny.model("qwen2", dtype=torch.float64)
    whole = report(model, budget)
    monkeypatch.setattr(vectors, "SHARE", 100)
    monkeypatch.setattr(reverse, "CACHED_NUMBERS", 100)
    cut = report(model, budget)
    assert cut.method is not None
    assert cut.method.passes == (2 if budget == "0B" else 1)
    for part in PARTS:
        expected, found = (dict(leaves(msgspec.to_builtins(getattr(r, part)), part)) for r in (whole, cut))
        assert found == pytest.approx(expected, rel=1e-6, abs=1e-9)
