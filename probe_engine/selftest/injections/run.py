"""RUN, injected."""

from __future__ import annotations

import os
import time
from typing import Any

from probe_engine.api import doctor
from probe_engine.assembly import fold
from probe_engine.events import FindingEvent, Heartbeat, encode
from probe_engine.liveness import SILENT_SECONDS, judge, silence
from probe_engine.report import Report
from probe_engine.selftest.injection import Injection
from probe_engine.selftest.lab import Lab


def _out_of_memory(lab: Lab) -> Report:
    healthy = lab.objects()

    def exhausted(*_: Any) -> None:
        raise MemoryError("no room for the logits")

    healthy.model.get_base_model().lm_head.register_forward_hook(exhausted)
    return doctor(healthy.model, optimizer=healthy.optimizer, batch=healthy.batch, device="cpu")


def _hanging(lab: Lab) -> Report:
    """A run whose log gave a sign of life a minute ago and lacks its end, while its process lives."""
    run = lab.folder() / "run"
    report = doctor(lab.checkpoint(), device="cpu", out=str(run))
    log = run / "events.jsonl"
    *said, _ = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join(said) + encode(Heartbeat()))
    a_minute_ago = time.time() - 60
    os.utime(log, (a_minute_ago, a_minute_ago))

    still = time.time() - log.stat().st_mtime
    if judge(over=False, process=True, beats=True, still=still, limit=SILENT_SECONDS) != "silent":
        return report
    found = silence(still, SILENT_SECONDS, f"the log has been still for {still:.0f} s", ())
    return fold(report, FindingEvent(finding=found))


def _report_in_the_way(lab: Lab) -> Report:
    """The report's place is taken by a folder, so that it can't be put there."""
    run = lab.folder() / "run"
    (run / "report.json" / "older").mkdir(parents=True)
    return doctor(lab.checkpoint(), device="cpu", out=str(run))


INJECTIONS: tuple[Injection, ...] = (
    Injection("RUN001", "memory runs out in a forward pass", _out_of_memory),
    Injection("RUN002", "the log stands still while the process lives", _hanging),
    Injection("RUN003", "report.json can't be written", _report_in_the_way),
)
