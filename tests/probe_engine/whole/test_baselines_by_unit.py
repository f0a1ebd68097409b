"""Each unit's part of the zero-cost baselines, and how the parts rank units beside the probe's numbers."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import msgspec
import pytest
import tiny
import torch
from scipy.stats import spearmanr
from torch import nn

from probe_engine import probe
from probe_engine.report import Baselines, Report
from probe_engine.types import Batch

BATCH = tiny.batch(sizes=(4, 2, 3, 4, 2, 4, 3, 2))
NAMES = ("covariance", "discriminant")


def model() -> nn.Module:
    return tiny.cast(tiny.with_lora(tiny.model("llama")), torch.float64)


def probed(batch: Batch = BATCH, lr: float = 1e-3, **options: Any) -> Report:
    live = model()
    optimizer = tiny.optimizer(live, lr=lr)
    return probe(live, optimizer=optimizer, batch=batch, dtype="float64", device="cpu", **options)


@cache
def healthy(x_estimator: str = "both") -> Report:
    return probed(x_estimator=x_estimator)


def baselines(report: Report) -> Baselines:
    assert report.estimates.baselines is not None
    return report.estimates.baselines


def by_hand(batch: Batch) -> dict[str, dict[str, float]]:
    """Each unit's parts, token by token, each response scored alone."""
    live = model()
    tokens: list[tuple[str, float, float, float]] = []
    with torch.no_grad():
        for unit in batch.units:
            for group in unit.groups:
                for response in group.responses:
                    logits = live(torch.tensor([group.tokens + response.tokens])).logits[0]
                    for t, token in enumerate(response.tokens, start=len(group.tokens) - 1):
                        p = logits[t].softmax(-1)
                        S = p * (p.log() - (p * p.log()).sum())
                        own = float(S[token] - (p * S).sum())
                        tokens.append((unit.id, response.advantage, math.log(float(p[token])), own))
    mean_a = math.fsum(a for _, a, _, _ in tokens) / len(tokens)
    mean_ell = math.fsum(ell for _, _, ell, _ in tokens) / len(tokens)
    parts = {unit.id: dict.fromkeys(NAMES, 0.0) for unit in batch.units}
    for id, a, ell, own in tokens:
        parts[id]["covariance"] -= (a - mean_a) * (ell - mean_ell) / len(tokens)
        parts[id]["discriminant"] -= a * own / len(tokens)
    return parts


def test_a_unit_s_part_is_the_sum_over_its_own_tokens() -> None:
    expected = by_hand(BATCH)
    for unit in healthy().units:
        for name in NAMES:
            # RMSNorm and the token statistics compute in float32.
            assert getattr(unit, name) == pytest.approx(expected[unit.id][name], rel=1e-4, abs=1e-7)


@pytest.mark.parametrize("options", [{}, {"units": "block", "block_size": 3}, {"loss_type": "grpo"}])
def test_the_parts_of_all_units_add_up_to_the_baseline(options: dict[str, Any]) -> None:
    report = probed(rows_of(BATCH), max_completion_length=7, **options) if options else healthy()
    for name in NAMES:
        parts = [getattr(unit, name) for unit in report.units]
        assert math.fsum(parts) == pytest.approx(getattr(baselines(report), name), rel=1e-12)
        # Neither blocks nor the loss's length weights change what a token says.
        assert getattr(baselines(report), name) == pytest.approx(
            getattr(baselines(healthy()), name), rel=1e-6
        )


def rows_of(batch: Batch) -> Any:
    """As rows of the native format."""
    return [
        {
            "prompt_id": group.id,
            "prompt_tokens": list(group.tokens),
            "response_tokens": list(response.tokens),
            "advantage": response.advantage,
        }
        for group in batch.groups
        for response in group.responses
    ]


@pytest.mark.parametrize("x_estimator", ["score", "rao_blackwell"])
def test_the_ranks_are_those_of_the_report_s_own_numbers_by_the_headline_s_form(x_estimator: str) -> None:
    report = healthy(x_estimator)
    assert report.estimates.x_estimator == x_estimator
    suffix = "_rb" if x_estimator == "rao_blackwell" else ""
    for name in NAMES:
        ranks = getattr(baselines(report), f"{name}_ranks")
        for key in ("contribution_r", "x_dot_py"):
            expected = spearmanr(column(report, name), column(report, key + suffix)).statistic
            assert getattr(ranks, key) == pytest.approx(expected)


def column(report: Report, key: str) -> list[float]:
    return [getattr(unit, key) for unit in report.units]


def test_x_dot_py_of_both_forms_is_the_diagonal_of_the_influence_matrix() -> None:
    influence = healthy().influence
    assert influence is not None
    assert influence.K_rb is not None
    for key, K in (("x_dot_py", influence.K), ("x_dot_py_rb", influence.K_rb)):
        of_units = dict(zip(influence.ids, (row[i] for i, row in enumerate(K)), strict=True))
        for unit in healthy().units:
            assert 1e-3 * getattr(unit, key) == pytest.approx(of_units[unit.id])
    assert all(u.x_norm_rb is not None and u.x_norm_rb != u.x_norm for u in healthy().units)
    assert all(u.x_norm_rb is None and u.x_dot_py_rb is None for u in healthy("score").units)


def test_more_passes_rank_alike() -> None:
    again = probed(memory_budget="1B")
    assert again.method is not None
    assert again.method.passes == 4
    for name in NAMES:
        expected = getattr(baselines(healthy()), f"{name}_ranks")
        assert getattr(baselines(again), f"{name}_ranks") == expected


def test_a_learning_rate_of_0_moves_no_rank() -> None:
    frozen = probed(lr=0.0, x_estimator="rao_blackwell")
    assert set(column(frozen, "contribution_r_rb")) == {0.0}
    found, expected = baselines(frozen), baselines(healthy("rao_blackwell"))
    assert found.covariance_ranks == expected.covariance_ranks
    assert found.discriminant_ranks == expected.discriminant_ranks


@pytest.mark.parametrize("count", [1, 2])
def test_below_three_units_nothing_is_ranked(count: int) -> None:
    report = probed(tiny.batch(sizes=(4,) * count))
    assert len(report.units) == count
    for name in NAMES:
        assert getattr(report.units[0], name) is not None
        ranks = getattr(baselines(report), f"{name}_ranks")
        assert (ranks.contribution_r, ranks.x_dot_py) == (None, None)


def test_units_that_are_all_alike_have_no_rank() -> None:
    silent = [row | {"advantage": 0.0} for row in rows_of(BATCH)]
    report = probed(silent, max_completion_length=7)
    assert set(column(report, "covariance")) == set(column(report, "discriminant")) == {0.0}
    for name in NAMES:
        assert msgspec.to_builtins(baselines(report))[f"{name}_ranks"] == {
            "contribution_r": None,
            "x_dot_py": None,
        }


def test_a_report_of_an_older_version_still_loads() -> None:
    older = msgspec.to_builtins(healthy())
    for name in NAMES:
        del older["estimates"]["baselines"][f"{name}_ranks"]
    for unit in older["units"]:
        for key in (*NAMES, "x_norm_rb", "x_dot_py_rb"):
            del unit[key]
    loaded = msgspec.convert(older, Report)
    assert baselines(loaded).covariance_ranks is None
    assert all(row.covariance is None for row in loaded.units)
