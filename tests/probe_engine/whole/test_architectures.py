"""No false alarm: healthy runs of many architectures and adapters, and the page of what is said of them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import healthy
import pytest
import torch
import written
from oracles.twin import Prompt, Twin
from transformers.utils import logging

from probe_engine import doctor, probe
from probe_engine.report import Report

PAGE = Path(__file__).parents[3] / "docs" / "architectures.md"
ABOVE_INFO = ("warn", "fail", "crash")
OF_THE_BATCH = {"OPT010", "STAT005", "STAT006"}
"""True at times of three steps and twelve prompts, whatever the model; the page says so."""
RELATIVE = 1e-4
UNITS = 2
"""Prompts of each checkpoint that the twin measures."""


def table() -> dict[tuple[str, str], set[str]]:
    """The page's table: (architecture, adapter) to the findings of that cell, as `CODE status`."""
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in PAGE.read_text("utf-8").splitlines()
        if line.startswith("|")
    ]
    (_, *adapters), _, *body = rows
    return {
        (name.strip("`"), adapter): {said.strip() for said in cell.split(",") if said.strip() != "–"}
        for name, *cells in body
        for adapter, cell in zip(adapters, cells, strict=True)
        if cell
    }


TABLE = table()
WHOLE = {
    (name, [kind for a, kind in TABLE if a == name][turn % 5])
    for turn, name in enumerate(healthy.ARCHITECTURES)
}
"""One adapter of each architecture is probed to the end; of the others the doctor is enough."""


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    logging.disable_progress_bar()
    yield
    logging.enable_progress_bar()


@pytest.fixture(scope="module")
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    folder = tmp_path_factory.mktemp(request.param)
    yield healthy.base(request.param, folder)
    shutil.rmtree(folder)


def pairs(which: Any = TABLE) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(
        ("base", "adapter"),
        [pytest.param(a, k, id=f"{a} {k}") for a, k in TABLE if (a, k) in which],
        indirect=["base"],
    )


def test_the_page_lists_what_is_tried() -> None:
    assert {name for name, _ in TABLE} == set(healthy.ARCHITECTURES)
    assert {adapter for _, adapter in TABLE} == set(healthy.ADAPTERS)
    assert all(len([1 for a, _ in TABLE if a == name]) == 5 for name in healthy.ARCHITECTURES)


@pairs(TABLE.keys() - WHOLE)
def test_the_doctor_says_what_is_true_and_no_more(base: Any, adapter: str, tmp_path: Path) -> None:
    run = healthy.train(healthy.with_adapter(base, adapter), tmp_path)
    says_what_is_true(doctor(run.checkpoint, device="cpu"), base.config.model_type, adapter)


@pairs(WHOLE)
def test_the_probe_says_what_is_true_and_its_numbers_are(base: Any, adapter: str, tmp_path: Path) -> None:
    run = healthy.train(healthy.with_adapter(base, adapter), tmp_path)
    report = probe(run.checkpoint, device="cpu")
    says_what_is_true(report, base.config.model_type, adapter)
    numbers_are_the_twins(report, run)


@pairs({(name, "full") for name in healthy.ARCHITECTURES})
def test_weights_and_moments_find_their_names(base: Any, adapter: str, tmp_path: Path) -> None:
    run = healthy.train(healthy.with_adapter(base, adapter), tmp_path)
    policy = written.loaded(run.checkpoint).policy
    saved = dict(run.model.named_parameters())
    assert set(policy.registry.names) == set(saved)
    assert all(torch.equal(p, saved[name]) for name, p in policy.registry)
    moments = policy.optimizer.moments
    assert moments.keys() == run.exp_avg_sq.keys()
    assert all(torch.equal(moments[name].exp_avg_sq, v) for name, v in run.exp_avg_sq.items())


def says_what_is_true(report: Report, architecture: str, adapter: str) -> None:
    assert report.run.status == "complete"
    said = {
        f"{f.code} {f.status}": f.message
        for f in report.findings
        if (f.status in ABOVE_INFO and f.code not in OF_THE_BATCH)
        or (f.status == "info" and f.code.startswith(("PEFT", "GRAD")))
    }
    assert said.keys() == TABLE[architecture, adapter], said


def numbers_are_the_twins(report: Report, run: healthy.Healthy) -> None:
    """S, ‖X‖, ‖Y‖, ‖PY‖ and X·PY of some units, by plain autograd in float64 on the live trainer's model."""
    model = run.model.double()
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    if healthy.expert_weights(inner):
        inner.set_experts_implementation("eager")  # torch's grouped matrix product knows no float64
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    v_hat = [run.exp_avg_sq[name].double() / (1 - 0.999**healthy.STEPS) for name, _ in named]
    p = torch.cat([1 / (v.sqrt() + 1e-8).flatten() for v in v_hat])
    lines = [json.loads(line) for line in healthy.rollouts(run.checkpoint).read_text().splitlines()]
    for index, unit in enumerate(report.units[:UNITS]):
        rows = lines[index * healthy.RESPONSES :][: healthy.RESPONSES]
        q = Prompt(
            unit.id,
            unit.role,
            rows[0]["prompt_tokens"],
            [row["response_tokens"] for row in rows],
            [row["advantage"] for row in rows],
        )
        Twin(model, [w for _, w in named], p, 1.0, healthy.LIMIT, "dr_grpo", "dr_grpo", [q]).measure()
        assert list(unit.S) == pytest.approx(q.S, rel=RELATIVE)
        assert unit.x_norm == pytest.approx(float(q.X.norm()), rel=RELATIVE)
        assert unit.y_norm == pytest.approx(float(q.Y.norm()), rel=RELATIVE)
        assert unit.py_norm == pytest.approx(float(q.PY.norm()), rel=RELATIVE)
        scale = float(q.X.norm() * q.PY.norm())
        assert unit.x_dot_py == pytest.approx(float(q.X @ q.PY), abs=RELATIVE * scale)
