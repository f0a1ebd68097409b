"""Wire types of the result. The keys and units are interface.md's contract."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from probe_engine.catalogue import ENTRIES
from probe_engine.spec import Setting

SCHEMA_VERSION = 1

Status = Literal["ok", "info", "warn", "fail", "crash", "skip"]


class Struct(msgspec.Struct, frozen=True):
    """Base of the wire types."""


class Remedy(Struct, kw_only=True):
    """What to do: words, and commands to type."""

    text: str = ""
    commands: list[str] = []


class Finding(Struct, kw_only=True):
    """One check's outcome, carrying its own explanation."""

    code: str
    title: str
    status: Status
    message: str
    """What was expected, what was seen, what it means here."""
    value: float | str | None = None
    threshold: float | str | None = None
    evidence: dict[str, Any] = {}
    remedy: Remedy = Remedy()
    reference: str = ""
    duration_ms: float | None = None


def finding(
    code: str,
    status: Status,
    message: str,
    *,
    value: float | str | None = None,
    threshold: float | str | None = None,
    evidence: dict[str, Any] | None = None,
    remedy: str | None = None,
    commands: Sequence[str] | None = None,
) -> Finding:
    """A finding of the catalogue; title, reference and (unless given) remedy come from its entry."""
    entry = ENTRIES[code]
    quiet = status in ("ok", "skip")
    return Finding(
        code=code,
        title=entry.title,
        status=status,
        message=message,
        value=value,
        threshold=threshold,
        evidence=evidence or {},
        remedy=Remedy()
        if quiet
        else Remedy(
            text=entry.remedy if remedy is None else remedy,
            commands=list(entry.commands if commands is None else commands),
        ),
        reference=entry.reference,
    )


class Tool(Struct, kw_only=True):
    name: str = "probe-tui"
    version: str


class Environment(Struct, kw_only=True):
    python: str
    torch: str
    transformers: str
    peft: str
    device: str
    dtype: str
    threads: int


class OptimizerInfo(Struct, kw_only=True):
    class_: str = msgspec.field(name="class")
    lr: float | None
    lr_origin: str
    betas: tuple[float, float]
    eps: float
    weight_decay: float
    step: float | None
    matched: int
    missing: int
    fallbacks: int
    mapped_by: str = ""
    mapping_correlation: float | None = None
    """Median rank correlation of exp_avg_sq with the fresh gradient², over parameters: how sure index → name is."""


class CheckpointInfo(Struct, kw_only=True):
    path: str
    format: str
    kind: Literal["full", "peft"]
    step: int | None
    base: str | None
    trainable_tensors: int
    trainable_parameters: int
    optimizer: OptimizerInfo


class RolloutsInfo(Struct, kw_only=True):
    path: str
    format: str
    prompts: int
    responses: int
    tokens: int
    """Response tokens."""
    tokens_from: Literal["ids", "text"]
    max_completion_length: int
    max_completion_length_origin: str
    loss_type: str
    advantages_from: str
    """logged, or how they were computed."""
    step: int | None
    sampled_here: bool


class IdMatch(Struct, kw_only=True):
    """Do two sets of parameter objects agree (by `id`)?"""

    matched: int
    missing: int
    """In the registry (or buffer), not in the live model."""
    stray: int
    """In the live model, not in the registry (or buffer)."""

    @classmethod
    def count(cls, mine: set[int], live: set[int]) -> IdMatch:
        """Compares two sets of `id(p)`."""
        return cls(matched=len(mine & live), missing=len(mine - live), stray=len(live - mine))


class GradientFlow(Struct, kw_only=True):
    grad_context: str
    logits_grad_fn: str | None
    s_grad_fn: str | None
    dl_ds_nonzero: bool
    reaches_embeddings: bool
    registry: int
    x_non_none: int
    x_non_zero: int
    y_non_none: int
    y_non_zero: int
    matched: int
    missing: int
    stray: int
    fallbacks: int
    sum_x_norm: float | None
    sum_y_norm: float | None
    sum_py_norm: float | None
    stale_ratio: float | None
    """‖PȲ‖/‖P⁺Ȳ‖ of method.md (4b)."""


class MethodInfo(Struct, kw_only=True):
    name: str
    x_estimator: str
    passes: int
    vectors_kept: bool
    fallback_parameters: int
    attention: str


class ResponseRow(Struct, kw_only=True):
    text: str
    length: int
    terminated: bool
    reward: float | None
    advantage: float
    S: float
    c: float


class UnitRow(Struct, kw_only=True):
    id: str
    prompt: str
    role: Literal["E", "U"]
    G: int
    tokens: int
    """Response tokens."""
    reward_mean: float | None
    reward_std: float | None
    S: list[float]
    advantages: list[float]
    x_norm: float
    y_norm: float
    py_norm: float
    x_dot_py: float
    s: float | None = None
    t: float | None = None
    r: float | None = None
    contribution_s: float | None = None
    """+η·s_n: left of zero, entropy falls."""
    contribution_r: float | None = None
    """−η·r_n: left of zero, entropy falls."""
    s_rb: float | None = None
    r_rb: float | None = None
    t_rb: float | None = None
    on_policy_z: float | None = None
    responses: list[ResponseRow]


class UStatistic(Struct, kw_only=True):
    u_cross: float
    delta_h1: float
    se_plugin: float | None
    se_jackknife: float | None
    ci95: tuple[float, float] | None
    zeta1: float | None
    zeta2: float | None
    B: int
    prompts_needed: int | None


class VStatistic(Struct, kw_only=True):
    delta_h1: float
    se: float | None
    ci95: tuple[float, float] | None


class SplitEstimate(Struct, kw_only=True):
    delta_h1: float
    se: float | None
    se_conditional: float | None
    var_e: float | None
    var_u: float | None
    mean_s: float
    sum_s: float
    sum_s2: float
    B_E: int
    B_U: int
    df: float | None
    """Welch–Satterthwaite degrees of freedom."""
    ci95: tuple[float, float] | None
    prompts_needed: int | None


class Baselines(Struct, kw_only=True):
    covariance: float | None
    discriminant: float | None


class Estimates(Struct, kw_only=True):
    u_statistic: UStatistic | None = None
    v_statistic: VStatistic | None = None
    split: SplitEstimate | None = None
    adamw: None = None
    rao_blackwell: None = None
    baselines: Baselines | None = None


class RealizedUnit(Struct, kw_only=True):
    id: str
    d: float
    """This unit's share: ΔĤ is the mean of d over units."""
    ess: float
    log_w: list[float]


class RealizedRow(Struct, kw_only=True):
    step: Literal["preconditioned", "adamw"]
    pairing: Literal["held_out", "same_batch"]
    scale: float
    predicted: float
    delta_h: float
    se: float | None
    ci95: tuple[float, float] | None
    estimator: Literal["per_decision", "matched", "snis", "psis", "resample"]
    h_before: float
    h_after: float
    ess: float
    ess_fraction: float
    khat: float | None
    N: int
    units: list[RealizedUnit]


class Influence(Struct, kw_only=True):
    ids: list[str]
    K: list[list[float]]
    """K[u][v] = η·X_u·P Y_v: training on v moves the entropy of u by this much."""


class Histogram(Struct, kw_only=True):
    edges: list[float]
    counts: list[int]
    nan: int
    underflow: int
    overflow: int


class Histograms(Struct, kw_only=True):
    s: Histogram | None = None
    """Of +η·s_n, over E."""
    r: Histogram | None = None
    """Of −η·r_n, over all units."""
    log_w: Histogram | None = None
    """Of log w = S⁺ − S, held-out pairing."""


class VerdictRow(Struct, kw_only=True):
    step: str
    pairing: str
    estimator: str


class Verdict(Struct, kw_only=True):
    status: Literal["agree", "disagree", "inconclusive", "unreliable"]
    row: VerdictRow
    predicted: float
    measured: float
    z: float | None
    """(δH₁ − ΔĤ) over the SE of their paired difference."""
    reason: str


class RunInfo(Struct, kw_only=True):
    folder: str | None = None
    status: Literal["complete", "partial"] = "partial"
    exit_code: int = 4


class Report(Struct, kw_only=True):
    """What a run found. Parts that a run did not reach are null."""

    schema_version: int = SCHEMA_VERSION
    tool: Tool
    environment: Environment | None = None
    config: dict[str, Setting] = {}
    checkpoint: CheckpointInfo | None = None
    rollouts: RolloutsInfo | None = None
    findings: list[Finding] = []
    gradient_flow: GradientFlow | None = None
    on_policy: None = None
    method: MethodInfo | None = None
    forecast: None = None
    units: list[UnitRow] = []
    estimates: Estimates = Estimates()
    realized: list[RealizedRow] = []
    sweep: None = None
    self_influence: None = None
    influence: Influence | None = None
    histograms: Histograms = Histograms()
    verdict: Verdict | None = None
    timings: dict[str, float] = {}
    run: RunInfo = RunInfo()

    def worst(self, statuses: Sequence[str]) -> list[Finding]:
        """The findings that have one of these statuses."""
        return [f for f in self.findings if f.status in statuses]


def encode(report: Report) -> bytes:
    """The report as indented JSON; not-a-number becomes null."""
    return msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n"


def json_schema() -> dict[str, Any]:
    """The JSON Schema of `report.json`."""
    return msgspec.json.schema(Report)
