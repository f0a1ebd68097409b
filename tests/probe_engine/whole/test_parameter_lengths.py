"""Full finetuning: the vectors over all parameters that a run holds are no more than its report states."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import tiny
import torch
from live_bytes import LiveBytes
from torch import nn

from probe_engine import Report, probe
from probe_engine.model import next_step, pairwise
from probe_engine.model.teacher_forcing import (
    Layout,
    response_log_probs,
    response_logits,
    sequence_log_probs,
)
from probe_engine.model.unit_gradients import objectives
from probe_engine.types import Batch, Group

LAYERS = 8
AT_WORK = 34
"""Times one parameter, at most: a unit's gradients, the directions that they meet, and both widened."""


def small() -> Batch:
    """Four responses of each prompt, all equally long, so that a pass of four sequences is a unit's."""

    def even(group: Group) -> Group:
        responses = tuple(replace(r, tokens=tuple(range(i, i + 6))) for i, r in enumerate(group.responses, 1))
        return replace(group, tokens=tuple(range(4)), responses=responses)

    batch = tiny.batch(sizes=(4,) * 6)
    return replace(batch, units=tuple(replace(u, groups=tuple(map(even, u.groups))) for u in batch.units))


def model() -> nn.Module:
    """Its parameters are many and of about the same size, beside them activations are little."""
    return tiny.model(hidden_size=64, intermediate_size=96, num_hidden_layers=LAYERS)


def length(of: nn.Module) -> int:
    """Bytes of one vector."""
    return 4 * sum(p.numel() for p in of.parameters())


def activations(of: nn.Module) -> int:
    """Bytes at the peak of a training step, unit by unit, without the gradient that it leaves."""
    with LiveBytes() as live:
        for unit in objectives(small()):
            layout = Layout.of(unit.sequences, device=torch.device("cpu"))
            S = sequence_log_probs(response_log_probs(response_logits(of, layout), layout))
            (S * unit.advantages).sum().backward()
    of.zero_grad()
    return live.peak - length(of)


def run(of: nn.Module, **options: Any) -> tuple[Report, int]:
    """The whole probe, and its peak in bytes beside weights and optimizer's state."""
    optimizer = tiny.optimizer(of)
    with LiveBytes() as live:
        report = probe(of, optimizer=optimizer, batch=small(), micro_batch=4, fail_on="never", **options)
    assert report.verdict is not None
    return report, live.peak


@pytest.mark.parametrize(
    ("stated", "options"),
    [
        pytest.param(4, {"x_estimator": "score", "memory_budget": "0B"}, id="score"),
        pytest.param(6, {"x_estimator": "both", "memory_budget": "large"}, id="both"),
        pytest.param(4, {"x_estimator": "both", "memory_budget": "0B"}, id="apart"),
        pytest.param(6 + 1 + 3 * 6, {"x_estimator": "both"}, id="kept"),
        pytest.param(4 + 2, {"x_estimator": "score", "memory_budget": "0B", "method": "loop"}, id="loop"),
    ],
)
def test_no_more_vectors_live_than_the_report_states(
    stated: int, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    of = model()
    # Of small parameters several are gone through together, up to as many numbers as these.
    for module, name in ((next_step, "PIECE"), (pairwise, "WIDENED")):
        monkeypatch.setattr(module, name, max(p.numel() for p in of.parameters()))
    step = activations(of)
    if options.get("memory_budget") == "large":  # and yet not large enough to keep vectors
        options = {**options, "memory_budget": f"{17 * length(of)}B"}
    report, peak = run(of, **options)
    assert report.forecast is not None
    said = report.forecast.predicted[report.forecast.method].parameter_lengths
    assert said == stated
    one_parameter = max(p.numel() for p in of.parameters()) * 4 / length(of)
    lengths = (peak - step) / length(of)
    assert said - 1 < lengths < said + AT_WORK * one_parameter
