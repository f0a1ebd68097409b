"""Wire types of the result. The keys and units are interface.md's contract."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from probe_engine.catalogue import ENTRIES
from probe_engine.spec import Setting

SCHEMA_VERSION = 1

Status = Literal["ok", "info", "warn", "fail", "crash", "skip"]


Number = float | None
"""A measured number: not-a-number goes over the wire as null, and a finding says why."""


class Remedy(msgspec.Struct, frozen=True, kw_only=True):
    """What to do: words, and commands to type."""

    text: str = ""
    commands: list[str] = []


class Finding(msgspec.Struct, frozen=True, kw_only=True):
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
    cause: str = ""
    """The code of the root cause that this finding follows from; empty where it stands for itself."""
    duration_ms: Number = None


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
        value=_float(value),
        threshold=_float(threshold),
        evidence=evidence or {},
        remedy=Remedy()
        if quiet
        else Remedy(
            text=entry.remedy if remedy is None else remedy,
            commands=list(entry.commands if commands is None else commands),
        ),
        reference=entry.reference,
    )


def _float(value: float | str | None) -> float | str | None:
    """Counts become floats, as they would come back from the wire."""
    return float(value) if isinstance(value, int) else value


class Tool(msgspec.Struct, frozen=True, kw_only=True):
    name: str = "probe-tui"
    version: str


class Environment(msgspec.Struct, frozen=True, kw_only=True):
    python: str
    torch: str
    transformers: str
    peft: str
    device: str
    dtype: str
    threads: int


class OptimizerInfo(msgspec.Struct, frozen=True, kw_only=True):
    class_: str = msgspec.field(name="class")
    lr: Number
    lr_origin: str
    betas: tuple[float, float]
    eps: float
    weight_decay: float
    step: Number
    matched: int
    missing: int
    fallbacks: int
    mapped_by: str = ""


class CheckpointInfo(msgspec.Struct, frozen=True, kw_only=True):
    path: str
    format: str
    kind: Literal["full", "peft"]
    step: int | None
    base: str | None
    trainable_tensors: int
    trainable_parameters: int
    optimizer: OptimizerInfo


class RolloutsInfo(msgspec.Struct, frozen=True, kw_only=True):
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


class IdMatch(msgspec.Struct, frozen=True, kw_only=True):
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


class DerivativeTest(msgspec.Struct, frozen=True, kw_only=True):
    """Autograd's gradient against a central difference of what the model computes, method.md (19b)."""

    along_x: Number
    """Measured over predicted change of entropy along X̄: 1 where autograd's gradient is the derivative.
    Null where halving the step changes it: rounding or jumps of the forward drown it."""
    along_step: Number
    """The same along Δθ = PȲ: the factor that δH₁ is off by. Null as above, and where Ȳ is 0."""
    along_step_se: Number
    """Over the units tried."""
    units: int
    """Units tried."""


class GradientFlow(msgspec.Struct, frozen=True, kw_only=True):
    grad_context: str
    logits_grad_fn: str | None = None
    s_grad_fn: str | None = None
    dl_ds_nonzero: bool = False
    reaches_embeddings: bool = False
    registry: int
    x_non_none: int = 0
    x_non_zero: int = 0
    y_non_none: int = 0
    y_non_zero: int = 0
    matched: int = 0
    missing: int = 0
    stray: int = 0
    fallbacks: int = 0
    sum_x_norm: Number = None
    sum_y_norm: Number = None
    sum_py_norm: Number = None
    stale_ratio: Number = None
    """‖PȲ‖/‖P⁺Ȳ‖ of method.md (4b)."""
    derivative: DerivativeTest | None = None
    mapping_correlation: Number = None
    """How sure index → name of the optimizer state is: the median, over parameters, of the rank
    correlation of exp_avg_sq with the fresh gradient²."""


class OnPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """Are the samples this policy's? method.md (20)."""

    tokens: int
    """Response tokens looked at."""
    z: Number
    """Above 0: less likely than the policy's own samples."""
    temperature: Number
    """At which these samples are likeliest, within [1/3, 4] times `--policy-temperature`."""
    temperature_se: Number
    excluded_mass: Number
    """Share of the policy's probability that lies beyond every sample: about 0 for its own samples, up to
    1 − q under nucleus sampling with top-p = q."""
    excluded_mass_se: Number
    top_p: Number
    """The smallest nucleus that holds every sample."""


class MethodInfo(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    x_estimator: str
    passes: int
    vectors_kept: bool
    fallback_parameters: int
    attention: str
    checkpointed_layers: int = 0
    """Layers that run again in the reverse pass, with `--checkpointing`."""


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """What a method takes from the measurement to the verdict. No clock has a part in it."""

    passes: int
    """Passes over all units; 2 where their vectors are not kept."""
    tokens: int
    """Prompt and response tokens of these passes and of all scorings after a step."""
    flops: Number
    """In matrix products, padding included."""
    memory: int
    """Bytes at the peak, beside the loaded model and its optimizer's state."""


class Observed(msgspec.Struct, frozen=True, kw_only=True):
    """What a clock and the allocator say: other numbers in every run."""

    flops_per_second: Number
    """Of the forward and reverse passes of the gradient-flow check."""
    scoring_flops_per_second: Number
    """Of a forward pass without a graph."""
    expected_seconds: dict[str, Number]
    """By method, at these rates: the forecast of `seconds`."""
    seconds: Number = None
    """From the measurement to the verdict; null before that."""
    memory: int | None = None
    """Bytes at the peak above those held before the gradient-flow check; null where nothing tells."""


class Forecast(msgspec.Struct, frozen=True, kw_only=True):
    """What was foreseen before the measurement, and what then happened."""

    method: str
    """With which the run goes on."""
    predicted: dict[str, Cost]
    """By method."""
    measured: Observed


class ResponseRow(msgspec.Struct, frozen=True, kw_only=True):
    text: str
    length: int
    terminated: bool
    reward: Number
    advantage: Number
    S: Number
    c: Number


class UnitRow(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    prompt: str
    role: Literal["E", "U"]
    G: int
    tokens: int
    """Response tokens."""
    reward_mean: Number
    reward_std: Number
    S: list[Number]
    advantages: list[Number]
    x_norm: Number
    y_norm: Number
    py_norm: Number
    x_dot_py: Number
    s: Number = None
    t: Number = None
    r: Number = None
    contribution_s: Number = None
    """+η·s_n: left of zero, entropy falls."""
    contribution_r: Number = None
    """−η·r_n: left of zero, entropy falls."""
    s_rb: Number = None
    r_rb: Number = None
    t_rb: Number = None
    on_policy_z: Number = None
    responses: list[ResponseRow]


class UStatistic(msgspec.Struct, frozen=True, kw_only=True):
    u_cross: Number
    delta_h1: Number
    se_plugin: Number
    se_jackknife: Number
    ci95: tuple[Number, Number] | None
    zeta1: Number
    zeta2: Number
    B: int
    prompts_needed: int | None


class VStatistic(msgspec.Struct, frozen=True, kw_only=True):
    delta_h1: Number
    se: Number
    ci95: tuple[Number, Number] | None


class SplitEstimate(msgspec.Struct, frozen=True, kw_only=True):
    delta_h1: Number
    se: Number
    se_conditional: Number
    var_e: Number
    var_u: Number
    mean_s: Number
    sum_s: Number
    sum_s2: Number
    B_E: int
    B_U: int
    df: Number
    """Welch–Satterthwaite degrees of freedom."""
    ci95: tuple[Number, Number] | None
    prompts_needed: int | None


class AdamwParts(msgspec.Struct, frozen=True, kw_only=True):
    """X̄·Δθ by what the optimizer's step is made of, method.md §6: they add up to it."""

    gradient: Number
    """This batch's policy gradient, as if nothing were clipped."""
    clipping: Number
    """What clipping takes from it."""
    momentum: Number
    """Gradients of earlier steps."""
    weight_decay: Number


class AdamwEstimate(msgspec.Struct, frozen=True, kw_only=True):
    """δH₁ of the optimizer's own next step on U, over E: X̄_E·Δθ_U."""

    delta_h1: Number
    se: Number
    se_conditional: Number
    """Given U."""
    var_e: Number
    var_u: Number
    B_E: int
    B_U: int
    df: Number
    """Welch–Satterthwaite degrees of freedom."""
    ci95: tuple[Number, Number] | None
    prompts_needed: int | None
    parts: AdamwParts
    clip: Number
    """What clipping multiplies Ȳ of U by, at most 1."""
    max_grad_norm: Number
    """The trainer's; null where it is not known, and then nothing is clipped."""


class Baselines(msgspec.Struct, frozen=True, kw_only=True):
    covariance: Number
    discriminant: Number


class Estimates(msgspec.Struct, frozen=True, kw_only=True):
    u_statistic: UStatistic | None = None
    v_statistic: VStatistic | None = None
    split: SplitEstimate | None = None
    adamw: AdamwEstimate | None = None
    """Null where the optimizer's next step is not known (OPT012), or nothing was held out."""
    rao_blackwell: None = None
    baselines: Baselines | None = None


class RealizedUnit(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    d: Number
    """This unit's share: ΔĤ is the mean of d over units."""
    ess: Number
    log_w: list[Number]


class RealizedRow(msgspec.Struct, frozen=True, kw_only=True):
    step: Literal["preconditioned", "adamw"]
    pairing: Literal["held_out", "same_batch"]
    scale: float
    predicted: Number
    delta_h: Number
    se: Number
    ci95: tuple[Number, Number] | None
    estimator: Literal["per_decision", "matched", "snis", "psis", "resample"]
    h_before: Number
    h_after: Number
    ess: Number
    ess_fraction: Number
    khat: Number
    N: int
    units: list[RealizedUnit]


class SweepPoint(msgspec.Struct, frozen=True, kw_only=True):
    """The change that a multiple of the step makes, and its departure from first order."""

    scale: float
    predicted: Number
    """scale · δH₁"""
    delta_h: Number
    se: Number
    departure: Number
    """ΔĤ − scale · δH₁ on the same samples."""
    departure_se: Number
    """Of their paired difference over units: the sampling noise of first order is in both."""
    departure_ci95: tuple[Number, Number] | None
    ess_fraction: Number


class Sweep(msgspec.Struct, frozen=True, kw_only=True):
    """ΔĤ at several multiples of the step, method.md (19)."""

    step: Literal["preconditioned", "adamw"]
    pairing: Literal["held_out", "same_batch"]
    estimator: Literal["matched"]
    scales: list[float]
    points: list[SweepPoint]
    curvature: Number
    """C of ΔĤ ≈ k·δH₁ + k²·C: ½ d²H/dk² in the unit of H; null where too few points can be used."""
    curvature_se: Number
    linear_range: Number
    """The largest scale up to which first order holds; the largest one tried where it held throughout."""


class SelfInfluence(msgspec.Struct, frozen=True, kw_only=True):
    """How much of the same-batch change comes from each unit's own gradient."""

    value: Number
    """ΔĤ of the same batch − ΔĤ held-out."""
    diagonal_share: Number
    """(1/B²)·Σ X_n·P Y_n over X̄·PȲ: beyond 1 where the pairs of different units pull the other way."""


class Influence(msgspec.Struct, frozen=True, kw_only=True):
    ids: list[str]
    K: list[list[Number]]
    """K[u][v] = η·X_u·P Y_v: training on v moves the entropy of u by this much."""


class Histogram(msgspec.Struct, frozen=True, kw_only=True):
    edges: list[float]
    counts: list[int]
    nan: int
    underflow: int
    overflow: int
    zeros: int = 0
    """How many of the counted values are exactly 0: they lie in the bin that begins there."""


class Histograms(msgspec.Struct, frozen=True, kw_only=True):
    s: Histogram | None = None
    """Of +η·s_n, over E."""
    r: Histogram | None = None
    """Of −η·r_n, over all units."""
    log_w: Histogram | None = None
    """Of log w = S⁺ − S, the first step and pairing of `realized`."""


class VerdictRow(msgspec.Struct, frozen=True, kw_only=True):
    step: str
    pairing: str
    estimator: str


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    status: Literal["agree", "disagree", "inconclusive", "unreliable"]
    row: VerdictRow
    predicted: Number
    measured: Number
    z: Number
    """(δH₁ − ΔĤ) over the SE of their paired difference."""
    reason: str


class RunInfo(msgspec.Struct, frozen=True, kw_only=True):
    folder: str | None = None
    status: Literal["complete", "partial"] = "partial"
    exit_code: int = 4


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What a run found. Parts that a run did not reach are null."""

    schema_version: int = SCHEMA_VERSION
    tool: Tool
    environment: Environment | None = None
    config: dict[str, Setting] = {}
    checkpoint: CheckpointInfo | None = None
    rollouts: RolloutsInfo | None = None
    findings: list[Finding] = []
    gradient_flow: GradientFlow | None = None
    on_policy: OnPolicy | None = None
    method: MethodInfo | None = None
    forecast: Forecast | None = None
    units: list[UnitRow] = []
    estimates: Estimates = Estimates()
    realized: list[RealizedRow] = []
    sweep: Sweep | None = None
    self_influence: SelfInfluence | None = None
    influence: Influence | None = None
    histograms: Histograms = Histograms()
    verdict: Verdict | None = None
    timings: dict[str, float] = {}
    run: RunInfo = RunInfo()

    def __str__(self) -> str:
        """What is wrong, causes alone, with remedies; then the verdict: for a training script's log."""
        lines = []
        for found in self.worst(("crash", "fail", "warn")):
            if not found.cause:
                lines += [f"{found.code} {found.status}: {found.message}", f"  {found.remedy.text}"]
                lines += [f"    {command}" for command in found.remedy.commands]
        if self.verdict is not None:
            lines.append(f"{self.verdict.status}: {self.verdict.reason}")
        return "\n".join(lines) or "nothing is wrong"

    def worst(self, statuses: Sequence[str]) -> list[Finding]:
        """The findings that have one of these statuses."""
        return [f for f in self.findings if f.status in statuses]


def encode(report: Report) -> bytes:
    """The report as indented JSON; not-a-number becomes null."""
    return msgspec.json.format(to_json(report), indent=2) + b"\n"


def to_json(value: msgspec.Struct) -> bytes:
    """A wire type as JSON. A file name that is no Unicode gets question marks for what is none."""
    try:
        return msgspec.json.encode(value)
    except UnicodeEncodeError:
        return msgspec.json.encode(_encodable(msgspec.to_builtins(value)))


def _encodable(value: Any) -> Any:
    match value:
        case str():
            return value.encode("utf-8", "replace").decode()
        case dict():
            return {_encodable(key): _encodable(held) for key, held in value.items()}
        case list() | tuple():
            return [_encodable(held) for held in value]
        case _:
            return value


def json_schema() -> dict[str, Any]:
    """The JSON Schema of `report.json`."""
    return msgspec.json.schema(Report)
