"""The doctor's answer for people: causes first with their remedies, then what was looked at, by family."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from probe_engine.report import Finding, Report
from probe_tui.flow_answer import flow_answer
from probe_tui.plain import MARKS, checkpoint_lines, finding_lines, flow_lines
from probe_tui.renderables.findings import ATTENTION, causes_first, grouped

SLOW_MS = 1000.0
"""A check that takes longer says so."""


def diagnosis_lines(report: Report, *, verbose: bool = False, own_model: bool = False) -> list[str]:
    """All of it.

    Args:
        report: of a run to the stage flow, or as far as it came.
        verbose: also what is fine and what was not looked at, a line each, and the gradient-flow panel.
        own_model: the checkpoint was made for this run, so that its path says nothing.
    """
    lines: list[str] = []
    if own_model:
        lines.append("  a tiny model made for this, with its own rollouts and optimizer")
    elif report.checkpoint is not None:
        lines += checkpoint_lines(report.checkpoint)
    for found, follows in causes_first(report.findings):
        lines += _consequence(found) if follows else ["", *finding_lines(found)]
    lines.append("")
    for family, members in grouped(report.findings):
        lines += _family(family, members, verbose=verbose)
    if verbose and report.gradient_flow is not None:
        lines += ["", *flow_lines(report.gradient_flow)]
    answer = flow_answer(report.findings, report.gradient_flow, over=True)
    said = [f"{MARKS[answer.status]} {answer.sentence}"] if answer is not None else []
    return [*lines, "", *said, count_line(report.findings)]


def count_line(findings: Sequence[Finding]) -> str:
    """How many causes there are, and how many findings of each status."""
    causes = [f for f in findings if f.status in ATTENTION and not f.cause]
    statuses: Counter[str] = Counter(f.status for f in findings)
    counted = ", ".join(f"{statuses[s]} {s}" for s in MARKS if s in statuses) or "none"
    many = "nothing is wrong" if not causes else f"{len(causes)} to mend" if len(causes) > 1 else "1 to mend"
    return f"{many} (findings: {counted})"


def _consequence(found: Finding) -> list[str]:
    return [f"          so   {MARKS[found.status]} {found.code} {found.title}: {found.message}"]


def _family(name: str, members: Sequence[Finding], *, verbose: bool) -> list[str]:
    """What is fine in one line, what is worth knowing in a line each; what is wrong stands above."""
    statuses: Counter[str] = Counter(f.status for f in members)
    wrong = sum(statuses[status] for status in ATTENTION)
    looked = f"{name}: {len(members) - statuses['skip']} looked at, "
    head = looked + (f"{wrong} wrong, above" if wrong else "nothing wrong")
    shown = [f for f in members if verbose or f.status == "info" or (f.duration_ms or 0) > SLOW_MS]
    return [head, *(_line(f) for f in shown if f.status not in ATTENTION)]


def _line(found: Finding) -> str:
    took = found.duration_ms or 0.0
    slow = f" (slow: {took / 1000:.1f} s)" if took > SLOW_MS else ""
    return f"  {MARKS[found.status]} {found.status:<5} {found.code} {found.title}: {found.message}{slow}"
