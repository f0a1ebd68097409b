"""`--plain`: the stream as append-only text."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import groupby
from typing import TextIO

from probe_engine.events import (
    AnyEvent,
    EstimateEvent,
    Failed,
    FindingEvent,
    Finished,
    Hello,
    Part,
    Progress,
    StageFinished,
    StageStarted,
    Units,
)
from probe_engine.report import (
    CheckpointInfo,
    Estimates,
    Finding,
    GradientFlow,
    OnPolicy,
    RankCorrelation,
    RealizedRow,
    RolloutsInfo,
    Sweep,
    UnitRow,
    Verdict,
    XEstimates,
)
from probe_engine.spec import XForm
from probe_tui.estimates import FORM_NAMES, by_chance
from probe_tui.flow_answer import flow_answer
from probe_tui.output import write
from probe_tui.renderables.forecast import forecast_line, outcome_line
from probe_tui.renderables.numbers import ENTROPY_UNITS, interval, number
from probe_tui.sweep_words import (
    per_step_of,
    range_words,
    scale_words,
    self_influence_words,
    sweep_title,
)
from probe_tui.x_form import by_form

MARKS = {"ok": "✓", "info": "i", "warn": "!", "fail": "✗", "crash": "✗", "skip": "·"}
PROGRESS_EVERY = 2.0
"""Seconds between progress lines."""
TOP_PROMPTS = 5


class Plain:
    """A reader of the stream: lines to `out`, progress to `narration`.

    Args:
        out: where results go.
        narration: where progress goes.
        verbose: also the findings that are fine.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        out: TextIO,
        narration: TextIO,
        *,
        verbose: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._out = out
        self._narration = narration
        self._verbose = verbose
        self._clock = clock
        self._stage_began = 0.0
        self._last_progress = 0.0
        self._counts: dict[str, int] = {}
        self._findings: list[Finding] = []
        self._flow: GradientFlow | None = None
        self._units: dict[str, UnitRow] = {}
        self._panel: list[str] = []
        self._unit = "nats"
        self._last: Finding | None = None
        self._realized: list[str] = []

    def __call__(self, event: AnyEvent) -> None:
        """Writes what there is to say of one event."""
        match event:
            case Hello():
                weighting = event.config.get("weighting")
                self._unit = ENTROPY_UNITS.get(str(weighting.value) if weighting else "", "nats")
                e = event.environment
                self._say(
                    f"probe-tui {event.tool.version} · torch {e.torch} · transformers {e.transformers} · "
                    f"peft {e.peft} · {e.device} {e.dtype}, {e.threads} threads · seed {event.seed}"
                )
            case StageStarted():
                self._stage_began = self._last_progress = self._clock()
                self._say(f"\n▶ {event.stage}")
            case StageFinished():
                self._say(f"  {event.stage} took {event.seconds:.1f} s")
            case Progress():
                self._progress(event)
            case FindingEvent():
                self._finding(event.finding)
            case Units():
                self._units |= {row.id: row for row in event.rows}
            case EstimateEvent():
                self._lines(estimate_lines(event.estimates, self._unit))
                self._lines(prompt_lines(list(self._units.values()), event.estimates.x_estimator))
            case Part():
                self._part(event)
            case Failed():
                if self._last is not None and self._last.message == event.message:
                    self._say(f"\n✗ stopped: see {self._last.code} above")
                else:
                    self._say(f"\n✗ stopped: {event.message}")
                    if event.remedy:
                        self._say(f"  remedy: {event.remedy}")
                self._summary(event.run.folder)
            case Finished():
                self._summary(event.run.folder)
            case _:
                pass

    def _part(self, part: Part) -> None:
        if part.checkpoint is not None:
            self._lines(checkpoint_lines(part.checkpoint))
        if part.rollouts is not None:
            self._lines(rollout_lines(part.rollouts))
        if part.on_policy is not None:
            self._lines([on_policy_line(part.on_policy)])
        if part.gradient_flow is not None:
            self._flow = part.gradient_flow
            lines = flow_lines(part.gradient_flow)
            self._lines([line for line in lines if line not in self._panel])
            self._panel = lines
        if part.forecast is not None:
            over = part.forecast.measured.seconds is not None
            self._say(outcome_line(part.forecast) if over else forecast_line(part.forecast))
        if part.realized is not None:
            lines = realized_lines(part.realized)
            self._lines([line for line in lines if line not in self._realized])
            self._realized = lines
        if part.sweep is not None:
            self._lines(sweep_lines(part.sweep, self._unit))
        if part.self_influence is not None:
            self._say(f"  {self_influence_words(part.self_influence, self._unit)}")
        if part.verdict is not None:
            self._lines(verdict_lines(part.verdict))

    def _finding(self, found: Finding) -> None:
        self._counts[found.status] = self._counts.get(found.status, 0) + 1
        self._last = found
        self._findings.append(found)
        if found.status in ("ok", "skip") and not self._verbose:
            return
        self._lines(finding_lines(found))

    def _progress(self, event: Progress) -> None:
        now = self._clock()
        if now - self._last_progress < PROGRESS_EVERY:
            return
        self._last_progress = now
        rate = event.done / max(now - self._stage_began, 1e-9)
        left = f"{(event.total - event.done) / rate:.0f} s left" if rate else "time left unknown"
        write(
            self._narration,
            f"  … {event.stage}: {event.done:,} of {event.total:,} {event.unit}, "
            f"{rate:{',.0f' if rate >= 10 else '.2g'}} {event.unit}/s, {left}\n",
        )

    def _summary(self, folder: str | None) -> None:
        counted = ", ".join(f"{self._counts[s]} {s}" for s in MARKS if s in self._counts)
        self._say("")
        if answer := flow_answer(self._findings, self._flow, over=True):
            self._say(f"{MARKS[answer.status]} {answer.sentence}")
        self._say(f"findings: {counted or 'none'}")
        if folder:
            self._say(f"run folder: {folder}")

    def _lines(self, lines: list[str]) -> None:
        for line in lines:
            self._say(line)

    def _say(self, line: str) -> None:
        write(self._out, line + "\n")


def finding_lines(found: Finding) -> list[str]:
    """Glyph, word, code, message; the remedy under what is not fine, or the cause that has it."""
    lines = [f"  {MARKS[found.status]} {found.status:<5} {found.code} {found.title}: {found.message}"]
    if found.cause:
        return [*lines, f"          follows from {found.cause}"]
    if found.remedy.text:
        lines.append(f"          remedy: {found.remedy.text}")
    lines += [f"            $ {command}" for command in found.remedy.commands]
    if isinstance(snippet := found.evidence.get("snippet"), str):
        lines += ["          to see it:", *(f"            {line}" for line in snippet.splitlines())]
    return lines


def checkpoint_lines(info: CheckpointInfo) -> list[str]:
    """What was loaded."""
    o = info.optimizer
    base = f", base {info.base}" if info.base else ""
    lr = "lr unknown" if o.lr is None else f"lr {number(o.lr)} ({o.lr_origin})"
    state = (
        f"{o.class_ or 'an optimizer'} {lr}, betas {o.betas[0]:g} {o.betas[1]:g}, step {number(o.step)}; "
        f"state for {o.matched} of {info.trainable_tensors}, by {o.mapped_by}"
    )
    return [
        f"  {info.path} · {info.format} {info.kind}, step {_or_unknown(info.step)}{base}",
        f"  {info.trainable_tensors} trainable tensors, {info.trainable_parameters:,} parameters",
        f"  {state}" if o.mapped_by else f"  no optimizer state, so P = 1 for every parameter; {lr}",
    ]


def rollout_lines(info: RolloutsInfo) -> list[str]:
    """What was read."""
    return [
        f"  {info.path} · {info.format}, step {_or_unknown(info.step)}",
        f"  {info.prompts} prompts, {info.responses} responses, "
        f"{info.tokens:,} response tokens (from {info.tokens_from})",
        f"  advantages: {info.advantages_from}; loss type {info.loss_type}; "
        f"L_max {info.max_completion_length} ({info.max_completion_length_origin})",
    ]


def on_policy_line(seen: OnPolicy) -> str:
    """Are the samples this policy's? The finding that follows says what to think of it."""
    return (
        f"  on-policy  z = {number(seen.z)} over {seen.tokens:,} tokens, temperature "
        f"{number(seen.temperature)} ± {number(seen.temperature_se)}, excluded mass "
        f"{number(seen.excluded_mass)} ± {number(seen.excluded_mass_se)}"
    )


def flow_lines(panel: GradientFlow) -> list[str]:
    """The gradient-flow panel."""
    n = panel.registry
    return [
        f"  grad context        {panel.grad_context}",
        f"  logits grad_fn      {panel.logits_grad_fn or 'none'}",
        f"  S grad_fn           {panel.s_grad_fn or 'none'}",
        f"  ∂L/∂S non-zero      {'yes' if panel.dl_ds_nonzero else 'no'}",
        f"  reaches embeddings  {'yes' if panel.reaches_embeddings else 'no'}",
        f"  X                   {panel.x_non_none}/{n} non-None, {panel.x_non_zero} non-zero",
        f"  Y                   {panel.y_non_none}/{n} non-None, {panel.y_non_zero} non-zero",
        f"  registry / μ_Y ids  {panel.matched} matched, {panel.missing} missing, {panel.stray} stray",
        f"  P falls back        {panel.fallbacks} of {n}",
        f"  ‖ΣX‖ ‖ΣY‖ ‖ΣPY‖     {number(panel.sum_x_norm)}  {number(panel.sum_y_norm)}  "
        f"{number(panel.sum_py_norm)}",
    ]


def estimate_lines(estimates: Estimates, unit: str = "nats") -> list[str]:
    """δH₁, each estimate with its error."""
    lines = [f"  predicted change of entropy, δH₁ ± SE in {unit} (negative: entropy falls)"]
    for form in sorted(FORM_NAMES, key=lambda form: form != estimates.x_estimator):
        if estimates.rao_blackwell is not None:
            lines.append(f"    {FORM_NAMES[form]}{', the headline' if form == estimates.x_estimator else ''}")
        lines += _form_lines(estimates.by(form))
    if (v := estimates.v_statistic) is not None:
        lines.append(f"    V-statistic  {number(v.delta_h1)} ± {number(v.se)}, 95% {_bounds(v.ci95)}")
    if (b := estimates.baselines) is not None:
        lines.append(
            f"    covariance baseline {number(b.covariance)} (its scale is arbitrary: compare the sign)"
        )
        lines += _rank_lines(b.covariance_ranks, estimates)
        if b.discriminant is not None:
            lines.append(f"    discriminant baseline {number(b.discriminant)} (likewise)")
            lines += _rank_lines(b.discriminant_ranks, estimates)
    return lines


def _rank_lines(ranks: RankCorrelation | None, estimates: Estimates) -> list[str]:
    """Does a baseline put the prompts in the probe's order?"""
    if ranks is None or ranks.contribution_r is None:
        return []
    return [
        f"      its ranks  ρ = {number(ranks.contribution_r, 2)} with −η·r_n, "
        f"{number(ranks.x_dot_py, 2)} with X·PY{by_chance(estimates)}"
    ]


def _form_lines(by_form: XEstimates) -> list[str]:
    """What one form of X gives."""
    lines = []
    if (a := by_form.adamw) is not None:
        p = a.parts
        lines += [
            f"    own step     {number(a.delta_h1)} ± {number(a.se)} (what the optimizer does next), "
            f"95% {_bounds(a.ci95)}, B_E = {a.B_E}, B_U = {a.B_U}",
            f"      of it      gradient {number(p.gradient)}, clipping {number(p.clipping)}, "
            f"momentum {number(p.momentum)}, weight decay {number(p.weight_decay)}",
        ]
    if (u := by_form.u_statistic) is not None:
        lines.append(
            f"    U-statistic  {number(u.delta_h1)} ± {number(u.se_jackknife)} (jackknife; plug-in "
            f"{number(u.se_plugin)}), 95% {_bounds(u.ci95)}, B = {u.B}"
        )
    if (s := by_form.split) is not None:
        lines.append(
            f"    split E/U    {number(s.delta_h1)} ± {number(s.se)} "
            f"(given U {number(s.se_conditional)}), 95% {_bounds(s.ci95)}, B_E = {s.B_E}, B_U = {s.B_U}"
        )
    return lines


def prompt_lines(units: list[UnitRow], form: XForm = "score") -> list[str]:
    """The prompts that move entropy most, by their share of the U-statistic by a form of X."""
    known = [(c, u) for u in units if (c := by_form(u, form).contribution_r) is not None]
    total = sum(c for c, _ in known)
    if not known or not total:
        return []
    known.sort(key=lambda pair: -abs(pair[0]))
    lines = [f"  prompts that move it most (−η·r_n, share of their sum; {len(known)} in all)"]
    for contribution, unit in known[:TOP_PROMPTS]:
        text = " ".join(unit.prompt.split())
        lines.append(
            f"    {number(contribution):>10}  {contribution / total:>6.1%}  {unit.id}  "
            f"reward {number(unit.reward_mean)}  {text[:60]!r}"
        )
    return lines


def realized_lines(rows: list[RealizedRow]) -> list[str]:
    """ΔĤ beside its prediction."""
    lines: list[str] = []
    for step, members in groupby(rows, key=lambda row: row.step):
        lines.append(f"  measured change ± SE, after the {step} step (the weights are put back)")
        for row in members:
            name = f"{row.pairing.replace('_', '-')}, {row.estimator.replace('_', '-')}"
            form = " (Rao-Blackwell)" if row.x_estimator == "rao_blackwell" else ""
            lines.append(
                f"    {name:<24} ΔĤ {number(row.delta_h)} ± {number(row.se)}, "
                f"predicted {number(row.predicted)}{form}, {_worth(row)}"
            )
    return lines


def _worth(row: RealizedRow) -> str:
    """How much of its responses a measurement rests on."""
    if row.estimator == "resample":
        return f"{row.N} fresh responses"
    return f"ESS {number(row.ess)} of {row.N}, k̂ {number(row.khat)}"


def sweep_lines(sweep: Sweep, unit: str = "nats") -> list[str]:
    """ΔĤ/k at k times the step, and how far first order holds."""
    lines = [f"  {sweep_title(sweep, unit)}"]
    for p in sweep.points:
        per_step = (number(per_step_of(x, p)) for x in (p.delta_h, p.predicted, p.departure, p.departure_se))
        changed, first_order, departure, error = per_step
        lines.append(
            f"    {scale_words(p.scale):<8} ΔĤ/k {changed}, first order {first_order}, "
            f"departure {departure} ± {error}, ESS/N {number(p.ess_fraction)}"
        )
    lines.append(f"    {range_words(sweep)}")
    if sweep.curvature is not None:
        bend = f"{number(sweep.curvature)} ± {number(sweep.curvature_se)}"
        lines.append(f"    curvature C = {bend}: ΔĤ ≈ k·δH₁ + k²·C at k × step")
    return lines


def verdict_lines(verdict: Verdict) -> list[str]:
    """The verdict and its reason."""
    row = verdict.row
    pairing, estimator = (name.replace("_", "-") for name in (row.pairing, row.estimator))
    return [
        f"  VERDICT {verdict.status} ({row.step} step, {pairing}, {estimator})",
        f"  {verdict.reason}",
    ]


def _bounds(bounds: tuple[float | None, float | None] | None) -> str:
    return "unknown" if bounds in (None, (None, None)) else interval(*bounds)


def _or_unknown(value: int | None) -> str:
    return "unknown" if value is None else str(value)
