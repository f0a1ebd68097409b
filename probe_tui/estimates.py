"""The report's estimates as named numbers: what the Entropy tab and the exported page both list."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import groupby

from probe_engine.report import (
    AdamwEstimate,
    Baselines,
    Estimates,
    GradientFlow,
    RealizedRow,
    Report,
    SplitEstimate,
    UStatistic,
)
from probe_engine.spec import XForm
from probe_tui.renderables.forest import Interval
from probe_tui.renderables.numbers import ENTROPY_UNITS, interval, number

UNIT_WORDS = {
    "dr_grpo": "nats per token slot",
    "sequence": "nats per sequence",
    "per_token": "nats per token",
}
"""Of H under each `--weighting`, in full."""

Bounds = tuple[float | None, float | None] | None


@dataclass(frozen=True)
class Estimate:
    """A change of entropy, predicted or measured, and where the report holds it."""

    symbol: str
    """δH₁ or ΔĤ."""
    name: str
    interval: Interval
    """As a row of a forest plot."""
    path: str
    """For jq."""

    def said(self, unit: str) -> str:
        """With its unit and interval, as one copies it."""
        row = self.interval
        value = f"{self.symbol} {self.name}".rstrip() + f" = {number(row.value, 6)} {unit}"
        return value if row.lo is None else f"{value}, 95% {interval(row.lo, row.hi)}"


@dataclass(frozen=True)
class Named:
    """Any other number of the report."""

    label: str
    value: float | int | None
    unit: str
    path: str
    meaning: str

    @property
    def text(self) -> str:
        """The number with its unit; counts are exact."""
        shown = str(self.value) if isinstance(self.value, int) else number(self.value)
        return shown if self.value is None else f"{shown} {self.unit}".rstrip()


@dataclass(frozen=True)
class Headline:
    """δH₁ in words, and the number behind them."""

    value: str
    bounds: str
    words: str
    """Does entropy fall or rise?"""
    by: str
    """Which form of X it is by, where there are two."""
    estimate: Estimate

    @property
    def certain(self) -> bool:
        """Does the interval exclude 0?"""
        lo, hi = self.estimate.interval.lo, self.estimate.interval.hi
        return lo is not None and hi is not None and (lo > 0 or hi < 0)


def short_unit(report: Report) -> str:
    """Unit of an entropy, for axes and tables."""
    return ENTROPY_UNITS.get(_option(report, "weighting", "dr_grpo"), "nats")


def unit_words(report: Report) -> str:
    """Unit of an entropy, in full."""
    return UNIT_WORDS.get(_option(report, "weighting", "dr_grpo"), "nats")


def unit_name(report: Report) -> str:
    """What the estimates are over: prompts or blocks."""
    return "blocks" if _option(report, "units", "prompt") == "block" else "prompts"


def unit_numbers(report: Report) -> dict[str, int]:
    """By id: 1, 2, … as they came. Every tab knows a unit by this number, however it sorts them."""
    return {unit.id: number for number, unit in enumerate(report.units, start=1)}


def headline(report: Report) -> Headline | None:
    """The first estimate that is a number; None where there is none."""
    chosen = next((e for e in predictions(report.estimates) if e.interval.value is not None), None)
    if chosen is None:
        return None
    row = chosen.interval
    return Headline(
        value=f"δH₁ = {number(row.value)} {unit_words(report)}",
        by=_form_words(report.estimates),
        bounds="no interval" if row.lo is None or row.hi is None else f"95% {interval(row.lo, row.hi)}",
        words=_direction(row, report),
        estimate=chosen,
    )


def predictions(estimates: Estimates) -> tuple[Estimate, ...]:
    """δH₁ by each estimator, with its interval; the headline's first."""

    def row(name: str, note: str, path: str, value: float | None, bounds: Bounds) -> Estimate:
        return Estimate("δH₁", name, _bounded(name, value, bounds, note), f"{path}.delta_h1")

    rows = []
    for part, (name, note) in ESTIMATORS.items():
        for form in sorted(FORMS, key=lambda form: form != estimates.x_estimator):
            if (e := getattr(estimates.by(form), part)) is not None:
                named = f"{name}{FORMS[form]}"
                rows.append(row(named, note, f"{form_path(form)}.{part}", e.delta_h1, e.ci95))
    if (v := estimates.v_statistic) is not None:
        rows.append(row("V-statistic", "", ".estimates.v_statistic", v.delta_h1, v.ci95))
    return tuple(rows)


ESTIMATORS = {
    "adamw": ("optimizer's step", "Welch"),
    "u_statistic": ("U-statistic", "jackknife"),
    "split": ("split E/U", "Welch"),
}
"""The estimates that there are by each form of X: name, and whose error it is."""
FORMS: dict[XForm, str] = {"score": "", "rao_blackwell": " R-B"}
"""What an estimate's name says of its form of X."""


def form_path(form: XForm) -> str:
    """Where the report holds the estimates by a form of X."""
    return ".estimates" if form == "score" else f".estimates.{form}"


def measurements(report: Report) -> tuple[Estimate, ...]:
    """ΔĤ by each pairing and estimator, in the report's order."""
    return tuple(_measurement(index, row) for index, row in enumerate(report.realized))


def leading(report: Report) -> tuple[Estimate, ...]:
    """ΔĤ of each step and pairing by its first estimator, the best one; the others stand under Realized."""
    first: dict[tuple[str, str], Estimate] = {}
    for row, measured in zip(report.realized, measurements(report), strict=True):
        label, note = step_and_pairing(row), dashed(row.estimator)
        noted = replace(measured, interval=replace(measured.interval, label=label, note=note))
        first.setdefault((row.step, row.pairing), noted)
    return tuple(first.values())


def comparisons(report: Report) -> Iterator[tuple[str, list[Estimate]]]:
    """For each step and pairing: a heading, and each prediction with what was measured beside it."""
    indexed = list(enumerate(report.realized))
    for (step, pairing), members in groupby(indexed, key=lambda pair: (pair[1].step, pair[1].pairing)):
        listed: list[Estimate] = []
        for _, same in groupby(members, key=lambda pair: pair[1].x_estimator):
            rows = list(same)
            listed.append(_prediction(report.estimates, *rows[0]))
            listed += [_relabelled(_measurement(i, row), dashed(row.estimator)) for i, row in rows]
        yield f"{step} step, {dashed(pairing)}: {PAIRINGS[pairing]}", listed


PAIRINGS = {
    "held_out": "the step from U, entropy over E",
    "same_batch": "the step and entropy over all",
}
STEPS = {"adamw": "adamw", "preconditioned": "precond"}
PREDICTED_BY = {
    ("adamw", "held_out"): ".estimates.adamw.delta_h1",
    ("preconditioned", "held_out"): ".estimates.split.delta_h1",
    ("preconditioned", "same_batch"): ".estimates.v_statistic.delta_h1",
}


def predictor(estimates: Estimates, step: str, pairing: str, form: XForm = "score") -> Estimate | None:
    """The estimate, by a form of X, that says beforehand what a step and pairing measure."""
    source = PREDICTED_BY.get((step, pairing))
    if source is not None and form == "rao_blackwell":
        source = source.replace(".estimates.", ".estimates.rao_blackwell.")
    return next((e for e in predictions(estimates) if e.path == source), None)


def _measurement(index: int, row: RealizedRow) -> Estimate:
    name = f"{step_and_pairing(row)} {dashed(row.estimator)}"
    return Estimate("ΔĤ", name, _bounded(name, row.delta_h, row.ci95), f".realized[{index}].delta_h")


def _prediction(estimates: Estimates, index: int, row: RealizedRow) -> Estimate:
    """What the row is compared with."""
    source = predictor(estimates, row.step, row.pairing, row.x_estimator)
    if source is not None:
        return _relabelled(source, source.name)
    name = "Rao-Blackwell" if row.x_estimator == "rao_blackwell" else ""
    alone = Interval(f"δH₁ {name}".rstrip(), row.predicted, None, None)
    return Estimate("δH₁", name, alone, f".realized[{index}].predicted")


def _relabelled(e: Estimate, name: str) -> Estimate:
    """Under a heading that names step and pairing."""
    return replace(e, interval=replace(e.interval, label=f"{e.symbol} {name}"))


def step_and_pairing(row: RealizedRow) -> str:
    """`precond held-out`: short enough for the label of a row."""
    return f"{STEPS[row.step]} {dashed(row.pairing)}"


def dashed(name: str) -> str:
    """`held_out` as people write it."""
    return name.replace("_", "-")


def numbers(report: Report) -> Iterator[tuple[str, list[Named]]]:
    """What stands behind the estimates: headings, and the numbers under each."""
    estimates, unit, name = report.estimates, short_unit(report), unit_name(report)
    best, path = estimates.headline, form_path(estimates.x_estimator)
    if (a := best.adamw) is not None:
        listed = [*step_parts(report), *_adamw(a, unit, path)]
        yield f"the optimizer's own next step, by what it is made of{_by(estimates)}", listed
    if (u := best.u_statistic) is not None:
        title = f"U-statistic: every pair of different {name}{_by(estimates)}"
        yield title, _u_statistic(u, unit, name, path)
    if (s := best.split) is not None:
        title = f"split: {name} in E evaluate, {name} in U train{_by(estimates)}"
        yield title, _split(s, unit, name, path)
    if report.gradient_flow is not None:
        yield "preconditioner", _preconditioner(report.gradient_flow)
    if (b := estimates.baselines) is not None and b.covariance is not None:
        heading = "baseline: its scale is arbitrary, only sign and rank compare"
        known = [_baseline("covariance", b.covariance, "of log-probability and advantage", estimates)]
        if b.discriminant is not None:
            meaning = "of π(H + log π) and advantage, centred under the policy"
            known.append(_baseline("discriminant", b.discriminant, meaning, estimates))
        yield heading, known
        if ranks := _ranks(b):
            heading = f"do they rank the {name} as the probe does? Spearman's ρ"
            yield f"{heading}{by_chance(estimates)}{_by(estimates)}", ranks


def step_parts(report: Report) -> list[Named]:
    """What each part of the optimizer's step does to entropy; empty where the step is not known."""
    if (a := report.estimates.headline.adamw) is None:
        return []
    parts, unit, path = a.parts, short_unit(report), form_path(report.estimates.x_estimator)

    def named(label: str, value: float | None, field: str, meaning: str) -> Named:
        return Named(label, value, unit, f"{path}.adamw.parts.{field}", meaning)

    return [
        named("gradient", parts.gradient, "gradient", "(1 − β₁) of this batch's policy gradient, unclipped"),
        named("clipping", parts.clipping, "clipping", "what clipping takes from it"),
        named("momentum", parts.momentum, "momentum", "gradients of earlier steps"),
        named("weight decay", parts.weight_decay, "weight_decay", "weights drawn towards 0"),
    ]


def _by(estimates: Estimates) -> str:
    """Of which form the numbers under a heading are, where there are two."""
    if estimates.rao_blackwell is None:
        return ""
    return f", {FORM_NAMES[estimates.x_estimator]}"


FORM_NAMES: dict[XForm, str] = {
    "score": "by the score form of X",
    "rao_blackwell": "by the Rao-Blackwell form of X",
}


def _form_words(estimates: Estimates) -> str:
    """Which form of X the headline is by, and how its error compares with the other's."""
    if estimates.rao_blackwell is None:
        return ""
    said = f"It is {FORM_NAMES[estimates.x_estimator]}"
    score, rao_blackwell = estimates.by("score").se, estimates.rao_blackwell.se
    if score is None or rao_blackwell is None:
        return f"{said}."
    return f"{said}: SE {number(rao_blackwell)} by Rao-Blackwell, {number(score)} by score."


def _adamw(a: AdamwEstimate, unit: str, path: str) -> list[Named]:
    limit = "max_grad_norm is not known" if a.max_grad_norm is None else f"to {number(a.max_grad_norm)}"
    return [
        Named("SE", a.se, unit, f"{path}.adamw.se", "over both halves: the interval's"),
        Named("clip", a.clip, "", f"{path}.adamw.clip", f"what clipping multiplies Ȳ by: {limit}"),
    ]


def _u_statistic(u: UStatistic, unit: str, name: str, path: str) -> list[Named]:
    def named(label: str, value: float | int | None, unit: str, field: str, meaning: str) -> Named:
        return Named(label, value, unit, f"{path}.u_statistic.{field}", meaning)

    return [
        named("U_cross", u.u_cross, f"{unit} per η", "u_cross", "δH₁ = −η·U_cross: positive, entropy falls"),
        named(
            "SE jackknife", u.se_jackknife, unit, "se_jackknife", f"the interval's, with t of {u.B - 1} df"
        ),
        named("SE plug-in", u.se_plugin, unit, "se_plugin", "η·√(4ζ₁/B)"),
        named("ζ₁", u.zeta1, f"({unit} per η)²", "zeta1", "variance of the row means r_n"),
        named("ζ₂", u.zeta2, f"({unit} per η)²", "zeta2", "variance over pairs; needs the influence matrix"),
        named("B", u.B, name, "B", "how many it is over"),
        named(
            "needed", u.prompts_needed, name, "prompts_needed", "for an interval without 0, at this effect"
        ),
    ]


def _split(s: SplitEstimate, unit: str, name: str, path: str) -> list[Named]:
    def named(label: str, value: float | int | None, unit: str, field: str, meaning: str) -> Named:
        return Named(label, value, unit, f"{path}.split.{field}", meaning)

    return [
        named("SE", s.se, unit, "se", "√(Var_E + Var_U): the interval's"),
        named("SE given U", s.se_conditional, unit, "se_conditional", "√Var_E: for this half to train on"),
        named("Var_E", s.var_e, f"({unit})²", "var_e", "from which prompts evaluate"),
        named("Var_U", s.var_u, f"({unit})²", "var_u", "from which prompts train"),
        named("df", s.df, "", "df", "Welch–Satterthwaite degrees of freedom"),
        named("B_E", s.B_E, name, "B_E", "how many evaluate"),
        named("B_U", s.B_U, name, "B_U", "how many train"),
        named(
            "needed", s.prompts_needed, name, "prompts_needed", "for an interval without 0, at this effect"
        ),
    ]


def _preconditioner(flow: GradientFlow) -> list[Named]:
    return [
        Named(
            "stale ratio",
            flow.stale_ratio,
            "",
            ".gradient_flow.stale_ratio",
            "‖PȲ‖/‖P⁺Ȳ‖: 1 where v̂ is fresh; OPT010 judges it",
        ),
        Named(
            "mapping",
            flow.mapping_correlation,
            "",
            ".gradient_flow.mapping_correlation",
            "rank correlation of exp_avg_sq with gradient²: near 0, the state may be another parameter's",
        ),
    ]


def _baseline(name: str, value: float, meaning: str, estimates: Estimates) -> Named:
    first = next((e.interval.value for e in predictions(estimates) if e.interval.value), None)
    compared = ""
    if first is not None and value:
        compared = f": {'the same sign as' if first * value > 0 else 'another sign than'} δH₁"
    return Named(
        name,
        value,
        "",
        f".estimates.baselines.{name}",
        f"{meaning}{compared}",
    )


def by_chance(estimates: Estimates) -> str:
    """What a rank correlation is where the two have nothing in common: its standard deviation is 1/√(B−1)."""
    u = estimates.headline.u_statistic
    return "" if u is None or u.B < 2 else f" (0 ± {number(1 / math.sqrt(u.B - 1), 2)} by chance)"


def _ranks(b: Baselines) -> list[Named]:
    """Those rank correlations that are known."""
    listed = [
        Named(f"{short}, {target}", getattr(ranks, key), "", f".estimates.baselines.{field}.{key}", meaning)
        for short, field in (("cov", "covariance_ranks"), ("disc", "discriminant_ranks"))
        if (ranks := getattr(b, field)) is not None
        for target, key, meaning in RANKED
    ]
    return [n for n in listed if n.value is not None]


RANKED = (
    ("−η·r_n", "contribution_r", "its parts beside what each adds to δH₁"),
    ("X·PY", "x_dot_py", "beside what each does to itself, which δH₁ leaves out"),
)
"""What the baselines' parts are ranked beside: symbol, key, meaning."""


def _bounded(label: str, value: float | None, bounds: Bounds, note: str = "") -> Interval:
    lo, hi = bounds or (None, None)
    return Interval(label, value, lo, hi, note)


def _direction(row: Interval, report: Report) -> str:
    """Does entropy fall or rise? Only an interval that excludes 0 says so."""
    value = row.value or 0.0
    if value == 0:
        return "Exactly 0: the step, or every policy gradient, is 0."
    looks = "fall" if value < 0 else "rise"
    if row.lo is None or row.hi is None:
        return f"It looks like a {looks} of entropy; too few {unit_name(report)} for an interval."
    if row.lo > 0 or row.hi < 0:
        return f"Entropy {looks}s: the whole interval lies {'below' if value < 0 else 'above'} 0."
    estimates = report.estimates.headline
    behind = estimates.adamw or estimates.u_statistic or estimates.split
    needed = None if behind is None else behind.prompts_needed
    enough = f"; {needed} {unit_name(report)} would do at this effect size" if needed else ""
    return f"The sign is not known: it looks like a {looks}, but the interval covers 0{enough}."


def _option(report: Report, name: str, default: str) -> str:
    setting = report.config.get(name)
    return default if setting is None else str(setting.value)
