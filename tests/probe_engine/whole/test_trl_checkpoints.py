"""Checkpoints that trl's real GRPOTrainer wrote: every number of the report against the naive twin."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch
import trl_runs
from oracles.twin import Prompt, Twin
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from probe_engine import doctor, probe
from probe_engine.report import Report, UnitRow

RELATIVE = 1e-3


@pytest.fixture(scope="module", params=trl_runs.KINDS)
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> trl_runs.TrlRun:
    return trl_runs.train(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def report(run: trl_runs.TrlRun) -> Report:
    return probe(run.checkpoint)


@pytest.fixture(scope="module")
def twin(run: trl_runs.TrlRun, report: Report) -> Twin:
    return build_twin(run, report, weighting="dr_grpo")


def build_twin(run: trl_runs.TrlRun, report: Report, weighting: str) -> Twin:
    """Reads the checkpoint and the completions by its own means; only the E/U roles come from the report."""
    model = AutoModelForCausalLM.from_pretrained(run.base or run.checkpoint, dtype=torch.float64)
    if run.base is not None:
        model = PeftModel.from_pretrained(model, run.checkpoint, is_trainable=True).double()
    model.eval()
    named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    assert {n for n, _ in named} == set(run.state_by_name)
    p = torch.cat([preconditioner(run.state_by_name[n]).flatten() for n, _ in named])
    return Twin(
        model,
        [p for _, p in named],
        p,
        eta=1e-3,
        l_max=12,
        loss_type="dapo",
        weighting=weighting,
        prompts=read_prompts(run.checkpoint, report.units),
    ).measure()


def preconditioner(state: dict[str, torch.Tensor]) -> torch.Tensor:
    v_hat = state["exp_avg_sq"].double() / (1 - 0.999 ** float(state["step"]))
    return 1 / (v_hat.sqrt() + 1e-8)


def read_prompts(checkpoint: Path, units: list[UnitRow]) -> list[Prompt]:
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    rows = pd.read_parquet(checkpoint.parent / "completions" / f"completions_{trl_runs.STEP + 1:05d}.parquet")
    prompts = []
    for start in range(0, len(rows), 4):
        group = rows.iloc[start : start + 4]
        assert group["prompt"].nunique() == 1
        responses = []
        for text in group["completion"]:
            tokens = [tokenizer.convert_tokens_to_ids(c) for c in text]
            responses.append(tokens if len(tokens) >= 12 else [*tokens, tokenizer.eos_token_id])
        text = group["prompt"].iloc[0]
        row = next(u for u in units if u.prompt == text)
        prompts.append(
            Prompt(
                row.id,
                row.role,
                [tokenizer.convert_tokens_to_ids(c) for c in text],
                responses,
                group["advantage"].tolist(),
            )
        )
    assert len(prompts) == len(units)
    return prompts


def close(ours: float | None, theirs: float, scale: float = 0.0) -> None:
    """1e-3 relative, to the number itself or to the largest of its kind."""
    assert ours is not None
    assert ours == pytest.approx(theirs, rel=RELATIVE, abs=RELATIVE * scale)


def test_run_is_complete_and_says_where_its_inputs_came_from(report: Report, run: trl_runs.TrlRun) -> None:
    assert (report.run.status, report.run.exit_code) in {("complete", 0), ("complete", 1)}
    assert report.checkpoint is not None
    assert report.rollouts is not None
    assert report.checkpoint.step == trl_runs.STEP
    assert report.rollouts.step == trl_runs.STEP + 1
    assert report.checkpoint.optimizer.matched == len(run.state_by_name)
    assert report.checkpoint.optimizer.fallbacks == 0
    assert report.rollouts.loss_type == "dapo"
    assert report.rollouts.max_completion_length == 12
    assert {f.code for f in report.worst(("fail", "crash"))} <= {"OPT010", "STAT001", "STAT002"}


def test_units_agree_with_the_twin(report: Report, twin: Twin) -> None:
    by_id = {q.id: q for q in twin.prompts}
    r, s, t = twin.r(), twin.s(), twin.t()
    scale_r, scale_s, scale_t = (max(map(abs, kind.values())) for kind in (r, s, t))
    largest = max(abs(float(q.X @ q.PY)) for q in twin.prompts)
    for row in report.units:
        q = by_id[row.id]
        for ours, theirs in zip(row.S, q.S, strict=True):
            close(ours, theirs)
        for response, c in zip(row.responses, q.c, strict=True):
            close(response.c, c, max(map(abs, q.c)))
        close(row.x_norm, float(q.X.norm()))
        close(row.y_norm, float(q.Y.norm()))
        close(row.py_norm, float(q.PY.norm()))
        close(row.x_dot_py, float(q.X @ q.PY), largest)
        close(row.r, r[row.id], scale_r)
        close(row.contribution_r, -twin.eta * r[row.id], twin.eta * scale_r)
        if row.role == "E":
            close(row.s, s[row.id], scale_s)
            close(row.contribution_s, twin.eta * s[row.id], twin.eta * scale_s)
            assert row.t is None
        else:
            close(row.t, t[row.id], scale_t)
            assert row.s is None


def test_estimates_agree_with_the_twin(report: Report, twin: Twin) -> None:
    assert report.estimates.u_statistic is not None
    assert report.estimates.split is not None
    assert report.estimates.v_statistic is not None
    u, ours = twin.u_statistic(), report.estimates.u_statistic
    scale = twin.eta * max(map(abs, twin.r().values()))
    close(ours.u_cross, u["u_cross"], scale / twin.eta)
    close(ours.delta_h1, u["delta_h1"], scale)
    for name in ("zeta1", "zeta2", "se_plugin", "se_jackknife"):
        close(getattr(ours, name), u[name])
    close(report.estimates.v_statistic.delta_h1, twin.v_statistic(), scale)
    for name, value in twin.split().items():
        close(getattr(report.estimates.split, name), value, scale if name == "delta_h1" else 0.0)


@pytest.mark.parametrize("pairing", ["held_out", "same_batch"])
def test_realized_change_agrees_with_the_twin(report: Report, twin: Twin, pairing: str) -> None:
    held_out = pairing == "held_out"
    truth = twin.realized(
        twin.of("U") if held_out else twin.prompts, twin.of("E") if held_out else twin.prompts
    )
    rows = {
        row.estimator: row
        for row in report.realized
        if (row.step, row.pairing) == ("preconditioned", pairing)
    }
    for estimator in ("snis", "matched"):
        for name, value in truth[estimator].items():
            close(getattr(rows[estimator], name), value, truth[estimator]["se"])
    close(rows["snis"].ess, truth["ess"]["ess"])
    assert report.estimates.split is not None
    assert report.estimates.v_statistic is not None
    predicted = report.estimates.split if held_out else report.estimates.v_statistic
    assert rows["matched"].predicted == predicted.delta_h1


@pytest.mark.parametrize("run", ["llama-lora"], indirect=True)
@pytest.mark.parametrize("weighting", ["sequence", "per_token"])
def test_other_weightings_agree_with_the_twin(run: trl_runs.TrlRun, weighting: str) -> None:
    report = probe(run.checkpoint, weighting=weighting)
    twin = build_twin(run, report, weighting)
    assert report.estimates.u_statistic is not None
    close(
        report.estimates.u_statistic.u_cross, twin.u_statistic()["u_cross"], max(map(abs, twin.r().values()))
    )
    rows = {
        row.estimator: row
        for row in report.realized
        if (row.step, row.pairing) == ("preconditioned", "same_batch")
    }
    truth = twin.realized(twin.prompts, twin.prompts)
    close(rows["matched"].delta_h, truth["matched"]["delta_h"], truth["matched"]["se"])
    close(rows["snis"].delta_h, truth["snis"]["delta_h"], truth["snis"]["se"])


@pytest.mark.parametrize("examine", [doctor, probe])
def test_the_order_of_the_states_is_believed_and_a_shuffled_one_is_not(
    run: trl_runs.TrlRun, report: Report, examine: Callable[..., Report], tmp_path: Path
) -> None:
    """OPT008 on true states, and on the same states shuffled among parameters of equal shape.

    DoRA's magnitudes are too short to tell their order from a few groups: it takes the whole batch.
    """

    def found(report: Report) -> set[str]:
        return {f.status for f in report.findings if f.code == "OPT008"}

    assert found(report if examine is probe else examine(run.checkpoint)) == {"ok"}
    copied = shutil.copytree(run.checkpoint.parent, tmp_path / "run") / run.checkpoint.name
    saved = torch.load(copied / "optimizer.pt", weights_only=True)
    states = saved["state"]
    by_shape: dict[tuple[int, ...], list[int]] = {}
    for index, state in states.items():
        by_shape.setdefault(tuple(state["exp_avg_sq"].shape), []).append(index)
    turned = {i: states[m[(k + 1) % len(m)]] for m in by_shape.values() for k, i in enumerate(m)}
    torch.save({**saved, "state": turned}, copied / "optimizer.pt")
    options = {"base": str(run.base)} if run.base else {}
    assert "warn" in found(examine(copied, **options))
