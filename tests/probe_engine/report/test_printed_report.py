"""`print(report)`: what a training script's log shows."""

from __future__ import annotations

import msgspec

from probe_engine.assembly import empty
from probe_engine.report import Report, Verdict, VerdictRow, finding

DISAGREE = Verdict(
    status="disagree",
    row=VerdictRow(step="adamw", pairing="held_out", estimator="per_decision"),
    predicted=-2e-3,
    measured=1e-3,
    z=-4.0,
    reason="predicted −0.002, measured +0.001",
)


def printed(**parts: object) -> str:
    return str(msgspec.structs.replace(empty(), **parts))


def test_causes_stand_there_with_their_remedies_and_then_the_verdict() -> None:
    cause = finding("PEFT001", "fail", "no parameter is trainable", remedy="Load it so.", commands=("a", "b"))
    follows = msgspec.structs.replace(finding("GRAD007", "fail", "X is None"), cause="PEFT001")
    warned = finding("OPT001", "warn", "no state", remedy="Save it.", commands=())
    ok = finding("GRAD001", "ok", "gradients are on")
    skipped = finding("GRAD008", "skip", "waits for PEFT001")
    found = [ok, warned, cause, follows, skipped]
    assert printed(findings=found, verdict=DISAGREE).splitlines() == [
        "OPT001 warn: no state",
        "  Save it.",
        "PEFT001 fail: no parameter is trainable",
        "  Load it so.",
        "    a",
        "    b",
        "disagree: predicted −0.002, measured +0.001",
    ]


def test_a_report_without_a_complaint_says_so() -> None:
    assert printed() == "nothing is wrong"
    assert printed(findings=[finding("GRAD001", "ok", "gradients are on")]) == "nothing is wrong"


def test_a_report_from_disk_prints_as_the_one_in_memory() -> None:
    report = msgspec.structs.replace(empty(), verdict=DISAGREE)
    assert str(msgspec.json.decode(msgspec.json.encode(report), type=Report)) == str(report)
