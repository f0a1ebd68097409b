"""Does gradient flow? The first question of all, answered in one sentence that every face says alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from probe_engine.catalogue import ENTRIES
from probe_engine.report import Finding, GradientFlow

SERIOUS = ("fail", "crash")
OF_THE_FLOW = ("PEFT", "GRAD")
"""Families that can stop a gradient, or show that it is not the right one."""


@dataclass(frozen=True)
class FlowAnswer:
    """The sentence, and what it amounts to."""

    status: Literal["ok", "fail", "skip"]
    sentence: str


def flow_answer(findings: Sequence[Finding], flow: GradientFlow | None, *, over: bool) -> FlowAnswer | None:
    """The answer as far as a run has come; None where nothing speaks for or against it yet.

    Args:
        findings: so far.
        flow: the gradient-flow panel, once there is one.
        over: nothing more is to come.
    """
    causes = [f for f in findings if f.status in SERIOUS and not f.cause]
    at_fault = next((f for f in causes if f.code.startswith(OF_THE_FLOW)), None)
    if flow is not None and flow.x_non_zero and flow.y_non_zero:
        x, y, n = flow.x_non_zero, flow.y_non_zero, flow.registry
        reached = (
            f"{x} of {n} parameters, X and Y non-zero"
            if x == y
            else f"X is non-zero in {x} of {n} parameters, Y in {y}"
        )
        if at_fault is None:
            return FlowAnswer("ok", f"Gradient flows: {reached}")
        if min(x, y) < n:
            return FlowAnswer("fail", f"Gradient does not flow everywhere ({reached}): {_said(at_fault)}")
        return FlowAnswer("fail", f"Gradient flows, {reached}, but {_said(at_fault)}")
    if flow is not None or at_fault is not None:
        cause = at_fault or next(iter(causes), None)
        why = "X or Y is zero everywhere" if cause is None else _said(cause)
        # A panel that is not filled yet says nothing.
        if cause is not None or over:
            return FlowAnswer("fail", f"Gradient does not flow: {why}")
    if over:
        why = "the run ended before" if not causes else f"{_said(causes[0])} came first"
        return FlowAnswer("skip", f"Whether gradient flows is not known: {why}")
    return None


def _said(found: Finding) -> str:
    entry = ENTRIES.get(found.code)
    return f"{found.code}, {entry.fault if entry is not None else found.title}"
