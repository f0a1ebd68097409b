"""Remedies of STAT findings, followed on the injected faults."""

from __future__ import annotations

from probe_engine.api import probe
from probe_engine.report import Finding, Report
from probe_engine.selftest.injections.statistics import loud_prompt
from probe_engine.selftest.lab import Lab


def one(report: Report, code: str) -> Finding:
    (found,) = (f for f in report.findings if f.code == code)
    return found


def test_a_step_inside_the_linear_range_is_linear(lab: Lab) -> None:
    batch, lr = lab.batch(prompts=32, seed=6), 5e-3

    def swept(lr: float) -> Report:
        of = lab.objects()
        return probe(of.model, optimizer=of.optimizer, batch=batch, device="cpu", lr=lr, steps=("adamw",))

    bent = swept(lr)
    assert one(bent, "STAT004").status == "warn"
    assert bent.sweep is not None
    assert bent.sweep.linear_range is not None
    shorter = swept(0.95 * lr * bent.sweep.linear_range)
    assert one(shorter, "STAT004").status == "ok"


def test_fresh_responses_measure_what_the_weights_can_not(lab: Lab) -> None:
    alone = probe(lab.checkpoint(), device="cpu", lr=0.1)
    found = one(alone, "STAT001")
    assert found.status == "fail"
    assert any(command.endswith(" --resample") for command in found.remedy.commands)
    assert alone.verdict is not None
    assert alone.verdict.status == "unreliable"
    followed = probe(lab.checkpoint(), device="cpu", lr=0.1, resample=True)
    assert {one(followed, code).status for code in ("STAT001", "STAT002")} == {"info"}
    assert followed.verdict is not None
    assert followed.verdict.row.estimator == "resample"
    assert followed.verdict.status != "unreliable"
    assert followed.run.exit_code == 0


def test_without_the_unit_that_is_named_nobody_carries_most(lab: Lab) -> None:
    of = loud_prompt(lab)
    loud = probe(of.model, optimizer=of.optimizer, batch=of.batch, device="cpu", lr=1e-4)
    found = one(loud, "STAT006")
    assert found.status == "warn"
    index = [row.id for row in loud.units].index(found.evidence["unit"])
    responses = len(of.batch["advantages"]) // len(loud.units)
    kept = [i for i in range(len(of.batch["advantages"])) if i // responses != index]
    batch = {name: tensor[kept] for name, tensor in of.batch.items()}
    of = lab.objects()
    again = probe(of.model, optimizer=of.optimizer, batch=batch, device="cpu", lr=1e-4)
    assert one(again, "STAT006").status == "ok"
