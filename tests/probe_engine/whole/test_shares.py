"""Full finetuning: however few rows of a parameter are gone through at a time, the report is the same."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import pytest
import tiny
import torch
from torch import nn

from probe_engine import Report, probe, vectors
from probe_engine.model.unit_gradients.fused import reverse
from probe_engine.spec import Method

PARTS = ("gradient_flow", "estimates", "realized", "self_influence", "units")


def report(model: nn.Module, budget: str, method: Method = "fused") -> Report:
    return probe(
        model,
        optimizer=tiny.optimizer(model),
        batch=tiny.batch(sizes=(4,) * 6),
        memory_budget=budget,
        method=method,
        steps=("adamw", "preconditioned"),
        fail_on="never",
    )


def leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict | list | tuple):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(inner, f"{path}.{key}")
    else:
        yield path, value


def budget(model: nn.Module, lengths: int) -> str:
    """Bytes of so many vectors over its parameters."""
    return f"{8 * lengths * sum(p.numel() for p in model.parameters())}B"


def assert_equal(report: Report, expected: Report, but: Sequence[str] = ()) -> None:
    for part in PARTS:
        found, known = (
            {
                path: value
                for path, value in leaves(msgspec.to_builtins(getattr(r, part)), part)
                if not path.endswith(tuple(but))
            }
            for r in (report, expected)
        )
        assert found == pytest.approx(known, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize(("lengths", "passes"), [(0, 4), (16, 2), (18, 1)])
def test_the_report_is_that_of_whole_parameters(
    lengths: int, passes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny.model("qwen2", dtype=torch.float64)
    whole = report(model, budget(model, lengths))
    monkeypatch.setattr(vectors, "SHARE", 100)
    monkeypatch.setattr(reverse, "CACHED_NUMBERS", 100)
    cut = report(model, budget(model, lengths))
    assert cut.method is not None
    assert cut.method.passes == passes
    assert_equal(cut, whole)


@pytest.mark.parametrize("method", ["fused", "loop"])
def test_however_often_units_are_gone_through_the_report_is_the_same(method: Method) -> None:
    model = tiny.model("qwen2", dtype=torch.float64)
    once, *others = (report(model, budget(model, lengths), method) for lengths in (18, 17, 16, 15))
    assert [r.method.passes for r in (once, *others) if r.method] == [1, 2, 2, 4]
    for other in others:
        assert_equal(other, once, but=("zeta2", "prompts_needed"))  # known of pairs alone
