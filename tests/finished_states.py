"""A finished run as its report tells it, for tests of what shows and exports estimates."""

from __future__ import annotations

from typing import Any

import unit_states
from msgspec.structs import replace

from probe_engine.events import Finished
from probe_engine.report import (
    AdamwEstimate,
    AdamwParts,
    Baselines,
    CheckpointInfo,
    Environment,
    Estimates,
    Finding,
    GradientFlow,
    Histograms,
    OptimizerInfo,
    RealizedRow,
    RealizedUnit,
    Remedy,
    Report,
    RunInfo,
    SplitEstimate,
    Tool,
    UnitRow,
    UStatistic,
    Verdict,
    VerdictRow,
    VStatistic,
)
from probe_engine.spec import Setting
from probe_tui.state import ScreenState

U_STATISTIC = UStatistic(
    u_cross=12.5,
    delta_h1=-0.00125,
    se_plugin=0.00016,
    se_jackknife=0.00017,
    ci95=(-0.0016, -0.0009),
    zeta1=43.75,
    zeta2=387.5,
    B=64,
    prompts_needed=9,
)
SPLIT = SplitEstimate(
    delta_h1=-0.0012,
    se=0.00018,
    se_conditional=0.00015,
    var_e=2.25e-8,
    var_u=1e-8,
    mean_s=-12.0,
    sum_s=-384.0,
    sum_s2=6900.0,
    B_E=33,
    B_U=31,
    df=54.75,
    ci95=(-0.00156, -0.00084),
    prompts_needed=10,
)
V_STATISTIC = VStatistic(delta_h1=-0.0014, se=0.0002, ci95=(-0.0018, -0.001))
FLOW = GradientFlow(
    grad_context="grad on",
    logits_grad_fn="<UnsafeViewBackward0>",
    s_grad_fn="<SumBackward1>",
    dl_ds_nonzero=True,
    reaches_embeddings=True,
    registry=28,
    x_non_none=28,
    x_non_zero=28,
    y_non_none=28,
    y_non_zero=28,
    matched=28,
    missing=0,
    stray=0,
    fallbacks=0,
    sum_x_norm=19.5,
    sum_y_norm=1.75,
    sum_py_norm=8730.0,
    stale_ratio=1.05,
    mapping_correlation=0.907,
)
CHECKPOINT = CheckpointInfo(
    path="runs/checkpoint-30",
    format="hf-trainer",
    kind="peft",
    step=30,
    base="base",
    trainable_tensors=28,
    trainable_parameters=1000,
    optimizer=OptimizerInfo(
        class_="AdamW",
        lr=1e-4,
        lr_origin="optimizer.pt",
        betas=(0.9, 0.999),
        eps=1e-8,
        weight_decay=0.0,
        step=30,
        matched=28,
        missing=0,
        fallbacks=0,
    ),
)
ENVIRONMENT = Environment(
    python="3.11", torch="2", transformers="5", peft="0.19", device="cpu", dtype="float32", threads=1
)
ADAMW = AdamwEstimate(
    delta_h1=-0.0011,
    se=0.00015,
    se_conditional=0.00015,
    var_e=2.2e-8,
    var_u=1e-10,
    B_E=33,
    B_U=31,
    df=32.0,
    ci95=(-0.0014, -0.0008),
    prompts_needed=9,
    parts=AdamwParts(gradient=-0.0004, clipping=0.0003, momentum=-0.001, weight_decay=0.0),
    clip=0.25,
    max_grad_norm=1.0,
)
VERDICT = Verdict(
    status="agree",
    row=VerdictRow(step="preconditioned", pairing="held_out", estimator="matched"),
    predicted=-0.0012,
    measured=-0.00118,
    z=-0.5,
    reason="Entropy falls: predicted -0.0012, measured -0.00118.",
)
LOG_W = {"u0": [0.1, -0.1], "u2": [2.0, -2.0], "u4": [0.5, -0.5]}
"""Log-weights of the units in E: those of u2 are the least even."""


def realized(pairing: Any, estimator: Any, **changes: Any) -> RealizedRow:
    """A measurement with the log-weights above."""
    units = [
        RealizedUnit(id=name, d=-0.001, ess=ess, log_w=list(log_w))
        for (name, log_w), ess in zip(LOG_W.items(), (1.98, 1.07, 1.64), strict=True)
    ]
    values: dict[str, Any] = {
        "step": "preconditioned",
        "pairing": pairing,
        "scale": 1.0,
        "predicted": -0.0012 if pairing == "held_out" else -0.0014,
        "delta_h": -0.00118,
        "se": 0.00015,
        "ci95": (-0.0015, -0.00088),
        "estimator": estimator,
        "h_before": 0.26,
        "h_after": 0.25882,
        "ess": 240.0,
        "ess_fraction": 0.9375,
        "khat": 0.39,
        "N": 256,
        "units": units,
    }
    return RealizedRow(**(values | changes))


def found(code: str, status: Any, **values: Any) -> Finding:
    """A finding with a message and a remedy."""
    remedy = Remedy(text=f"remedy of {code}", commands=[f"probe-tui --fix {code}"])
    return Finding(
        code=code,
        title=f"title of {code}",
        status=status,
        message=f"message of {code}",
        remedy=remedy,
        **values,
    )


def report(**changes: Any) -> Report:
    """All parts that a run of this version fills."""
    estimators = ("matched", "snis", "psis")
    units: list[UnitRow] = unit_states.units(6)
    whole = Report(
        tool=Tool(version="0.1.0"),
        environment=ENVIRONMENT,
        config={
            "checkpoint": Setting("runs/checkpoint-30", "flag"),
            "weighting": Setting("dr_grpo", "default"),
            "units": Setting("prompt", "default"),
        },
        checkpoint=CHECKPOINT,
        findings=[
            found("GRAD001", "ok"),
            found("STAT001", "ok", value=0.9375, threshold=0.5),
            found("STAT002", "ok", value=0.39, threshold=0.58),
        ],
        gradient_flow=FLOW,
        units=units,
        estimates=Estimates(
            u_statistic=U_STATISTIC,
            v_statistic=V_STATISTIC,
            split=SPLIT,
            baselines=Baselines(covariance=-0.2, discriminant=None),
        ),
        realized=[realized(p, e) for p in ("held_out", "same_batch") for e in estimators],
        histograms=Histograms(
            s=unit_states.counted(u.contribution_s for u in units),
            r=unit_states.counted(u.contribution_r for u in units),
            log_w=unit_states.counted(x for log_w in LOG_W.values() for x in log_w),
        ),
        verdict=VERDICT,
        run=RunInfo(folder="runs/probe", status="complete", exit_code=0),
    )
    return replace(whole, **changes)


def state(**changes: Any) -> ScreenState:
    """What the screen knows when such a run has ended."""
    whole = report(**changes)
    return ScreenState(report=whole, ended=Finished(run=whole.run))
