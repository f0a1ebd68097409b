"""The whole run, readable on one screen; and its driver, which stamps, folds and hands on the events."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Literal, TypeVar

import msgspec
import torch

from probe_engine import __version__
from probe_engine.assembly import empty, fold
from probe_engine.environment import environment
from probe_engine.errors import ENGINE_DIED, INTERRUPTED, ProbeError
from probe_engine.events import (
    AnyEvent,
    Failed,
    FindingEvent,
    Finished,
    Hello,
    StageFinished,
    StageStarted,
)
from probe_engine.model.preserving import preserved
from probe_engine.model.unit_gradients import objectives, unit_gradients
from probe_engine.report import Finding, Report, RunInfo, Tool, finding
from probe_engine.sources.run_folder import RunFolder
from probe_engine.spec import Resolved, RunSpec
from probe_engine.stages import Stage
from probe_engine.stages.adopt import LiveObjects, adopt, small_batch
from probe_engine.stages.estimate import estimate, learning_rate
from probe_engine.stages.flow import flow
from probe_engine.stages.judge import judge
from probe_engine.stages.load import load
from probe_engine.stages.measure import measure
from probe_engine.stages.realize import realize
from probe_engine.stages.rollouts import live_rollouts, rollouts
from probe_engine.types import Batch, Policy

T = TypeVar("T")
Sink = Callable[[AnyEvent], None]
"""A reader of the stream; called with each event, stamped."""

Until = Literal["flow", "verdict"]


def probe_run(resolved: Resolved, until: Until, live: LiveObjects | None = None) -> Stage[None]:
    """Every stage in order. `until="flow"` is the doctor's run."""
    spec = resolved.spec
    yield _hello(resolved)
    policy = yield from _timed("load", load(spec) if live is None else adopt(spec, live))
    batch = yield from _timed("rollouts", _batch(spec, policy, until, live))
    units = objectives(batch)
    method = unit_gradients(
        spec.method,
        policy.model,
        policy.registry,
        micro_batch=spec.micro_batch,
        temperature=spec.policy_temperature,
    )
    with preserved(policy.model):
        checked = yield from _timed("flow", flow(policy, units, method, spec.policy_temperature))
        if until == "flow":
            return
        measured = yield from _timed(
            "measure",
            measure(policy, units, method, checked.preconditioner, checked.panel, spec.memory_budget_bytes),
        )
        eta = learning_rate(policy)
        estimates = yield from _timed("estimate", estimate(eta, measured))
        realized = yield from _timed("realize", realize(policy, method, eta, measured, estimates))
        yield from _timed("judge", judge(eta, measured, estimates, realized))


def _batch(spec: RunSpec, policy: Policy, until: Until, live: LiveObjects | None) -> Stage[Batch]:
    if live is None:
        return (yield from rollouts(spec, policy))
    if live.batch is None and until == "flow":
        return (yield from small_batch(policy, spec))
    return (yield from live_rollouts(spec, policy, live.batch))


def execute(
    resolved: Resolved,
    *,
    until: Until = "verdict",
    live: LiveObjects | None = None,
    sinks: Sequence[Sink] = (),
) -> Report:
    """Runs to the end, or to what stops it; returns the report of what was found either way.

    Args:
        resolved: the options.
        until: the last stage.
        live: the caller's own objects, instead of a checkpoint.
        sinks: readers of the stream; the run folder is one more where `--out` names it.

    Returns:
        The report; `run.exit_code` is the process's.

    Raises:
        ProbeError: the run folder can't be made (there is no stream yet to say it in).
    """
    spec = resolved.spec
    folder = RunFolder(Path(spec.out), resolved) if spec.out else None
    driver = _Driver([*([folder.append] if folder else []), *sinks])
    run = RunInfo(folder=spec.out, status="partial", exit_code=ENGINE_DIED)

    def failed(message: str, remedy: str, exit_code: int) -> None:
        driver(Failed(message=message, remedy=remedy, run=msgspec.structs.replace(run, exit_code=exit_code)))

    def stopped_by(error: ProbeError) -> None:
        if error.code:
            driver(FindingEvent(finding=_stopping(error)))
        failed(error.message, error.remedy, error.exit_code)

    try:
        # Closed, not left to the garbage collector: an interrupted virtual step is taken back here.
        with closing(probe_run(resolved, until, live)) as stream:
            for event in stream:
                driver(event)
        code = exit_code(driver.report, spec)
        driver(Finished(run=msgspec.structs.replace(run, status="complete", exit_code=code)))
    except ProbeError as error:
        stopped_by(error)
    except KeyboardInterrupt:
        failed("interrupted", "what was found before is in the report", INTERRUPTED)
    except Exception as error:  # noqa: BLE001 - whatever a model, a driver or a library raises, the
        # results so far outlive it, and the finding carries what an issue needs
        driver(FindingEvent(finding=_died(error)))
        failed(f"the engine died: {_one_line(error)}", "see RUN001", ENGINE_DIED)
    if folder is not None:
        try:
            folder.finish(driver.report)
        except ProbeError as error:
            stopped_by(error)
    return driver.report


def exit_code(report: Report, spec: RunSpec) -> int:
    """0, or 1 where a finding that counts is at or above `--fail-on`."""
    counted = {"fail": ("fail", "crash"), "warn": ("warn", "fail", "crash"), "never": ()}[spec.fail_on]
    for found in report.worst(counted):
        selected = not spec.select or found.code.startswith(spec.select)
        if selected and not (spec.ignore and found.code.startswith(spec.ignore)):
            return 1
    return 0


class _Driver:
    """Stamps each event, folds it into the report, hands it to the sinks."""

    def __init__(self, sinks: Sequence[Sink]) -> None:
        self.report = empty()
        self._sinks = list(sinks)
        self._seq = 0
        self._begin = time.monotonic()

    def __call__(self, event: AnyEvent) -> None:
        self._seq += 1
        stamped = msgspec.structs.replace(event, seq=self._seq, time=time.monotonic() - self._begin)
        self.report = fold(self.report, stamped)
        for sink in tuple(self._sinks):
            try:
                sink(stamped)
            except ProbeError:
                # A full disk stops the run, not the readers that can still hear of it.
                self._sinks.remove(sink)
                raise


def _timed(name: str, stage: Stage[T]) -> Stage[T]:
    begin = time.monotonic()
    yield StageStarted(stage=name)
    result = yield from stage
    yield StageFinished(stage=name, seconds=time.monotonic() - begin)
    return result


def _hello(resolved: Resolved) -> Hello:
    spec = resolved.spec
    return Hello(
        pid=os.getpid(),
        seed=spec.seed,
        tool=Tool(version=__version__),
        environment=environment(spec.device, spec.dtype),
        config=resolved.config(),
    )


def _stopping(error: ProbeError) -> Finding:
    return finding(
        error.code,
        "fail",
        error.message,
        evidence=error.evidence,
        remedy=error.remedy or None,
        commands=error.commands or None,
    )


def _died(error: Exception) -> Finding:
    memory = isinstance(error, MemoryError | torch.OutOfMemoryError)
    return finding(
        "RUN001",
        "crash",
        f"{'memory ran out' if memory else 'an error that no check foresaw'}: {_one_line(error)}",
        value=type(error).__name__,
        evidence={"where": _where(error)},
    )


def _where(error: Exception) -> list[str]:
    """The innermost frames, as file:line function: enough for an issue, no traceback on the screen."""
    frames, trace = [], error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        frames.append(f"{Path(code.co_filename).name}:{trace.tb_lineno} {code.co_name}")
        trace = trace.tb_next
    return frames[-4:]


def _one_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0][:200]}"
