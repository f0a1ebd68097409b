"""Does gradient flow? One sentence, said alike by every face."""

from __future__ import annotations

import io

from finished_states import FLOW, found, report
from msgspec.structs import replace

from probe_engine.catalogue import ENTRIES
from probe_engine.events import FindingEvent, Finished, Part
from probe_engine.report import RunInfo
from probe_tui.flow_answer import flow_answer
from probe_tui.formats.diagnosis import diagnosis_lines
from probe_tui.plain import Plain

HALF = replace(FLOW, y_non_zero=14)
NOWHERE = replace(FLOW, x_non_zero=0, y_non_zero=0)
FROZEN, EMPTY = found("PEFT001", "fail"), found("ROLL003", "fail")


def said(findings: list[object], flow: object, over: bool = True) -> tuple[str, str] | None:
    answer = flow_answer(findings, flow, over=over)  # type: ignore[arg-type]
    return None if answer is None else (answer.status, answer.sentence)


def test_it_flows() -> None:
    assert said([found("OPT004", "fail")], FLOW) == (
        "ok",
        "Gradient flows: 28 of 28 parameters, X and Y non-zero",
    )
    assert said([], HALF) == ("ok", "Gradient flows: X is non-zero in 28 of 28 parameters, Y in 14")


def test_it_does_not_and_the_cause_is_named() -> None:
    fault = ENTRIES["PEFT001"].fault
    consequence = found("GRAD003", "fail", cause="PEFT001")
    for flow in (None, NOWHERE):
        assert said([consequence, FROZEN], flow) == ("fail", f"Gradient does not flow: PEFT001, {fault}")
    assert said([EMPTY], NOWHERE) == ("fail", f"Gradient does not flow: ROLL003, {ENTRIES['ROLL003'].fault}")
    assert said([], NOWHERE) == ("fail", "Gradient does not flow: X or Y is zero everywhere")


def test_it_flows_to_some() -> None:
    assert said([found("GRAD013", "fail")], HALF) == (
        "fail",
        "Gradient does not flow everywhere (X is non-zero in 28 of 28 parameters, Y in 14): "
        f"GRAD013, {ENTRIES['GRAD013'].fault}",
    )


def test_it_flows_but_is_not_the_derivative() -> None:
    answer = said([found("GRAD021", "fail")], FLOW)
    assert answer == (
        "fail",
        f"Gradient flows, 28 of 28 parameters, X and Y non-zero, but GRAD021, {ENTRIES['GRAD021'].fault}",
    )


def test_what_is_not_known_is_not_said() -> None:
    assert said([found("CKPT001", "ok")], None, over=False) is None
    assert said([], NOWHERE, over=False) is None
    unknown = "Whether gradient flows is not known: "
    assert said([], None) == ("skip", f"{unknown}the run ended before")
    assert said([found("CKPT002", "fail")], None) == (
        "skip",
        f"{unknown}CKPT002, {ENTRIES['CKPT002'].fault} came first",
    )


def test_plain_and_doctor_say_the_same() -> None:
    out = io.StringIO()
    reader = Plain(out, io.StringIO())
    reader(FindingEvent(finding=FROZEN))
    reader(Part(gradient_flow=NOWHERE))
    reader(Finished(run=RunInfo()))
    whole = "\n".join(diagnosis_lines(report(findings=[FROZEN], gradient_flow=NOWHERE)))
    sentence = f"✗ Gradient does not flow: PEFT001, {ENTRIES['PEFT001'].fault}\n"
    assert sentence in out.getvalue()
    assert sentence in whole
