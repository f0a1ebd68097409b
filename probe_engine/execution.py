"""Drives a run: stamps, folds and hands on its events; turns what stops it into a report and an exit code."""

from __future__ import annotations

import re
import shlex
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path

import msgspec

from probe_engine.assembly import empty, fold
from probe_engine.catalogue import ENTRIES
from probe_engine.control import Gate, StopRequested
from probe_engine.errors import ENGINE_DIED, INTERRUPTED, ProbeError, UsageError, memory_ran_out
from probe_engine.events import AnyEvent, Failed, FindingEvent, Finished, Heartbeat
from probe_engine.pipeline import Loader, Until, probe_run
from probe_engine.report import Finding, Report, RunInfo, finding
from probe_engine.sources.run_folder import RunFolder
from probe_engine.spec import Resolved, RunSpec
from probe_engine.stages.adopt import LiveObjects, adopt
from probe_engine.stages.load import load

HEARTBEAT_SECONDS = 2.0
FIRED = ("warn", "fail", "crash")

Sink = Callable[[AnyEvent], None]
"""A reader of the stream; called with each event, stamped."""


def execute(
    resolved: Resolved,
    *,
    until: Until = "verdict",
    live: LiveObjects | None = None,
    sinks: Sequence[Sink] = (),
    loader: Loader = load,
    gate: Gate | None = None,
) -> Report:
    """Runs to the end, or to what stops it; returns the report of what was found either way.

    Args:
        resolved: the options.
        until: the last stage.
        live: the caller's own objects, instead of a checkpoint.
        sinks: readers of the stream; the run folder is one more where `--out` names it.
        loader: where the policy comes from.
        gate: holds the run where its commands say so; with one, heartbeats tell that the engine lives.

    Returns:
        The report; `run.exit_code` is the process's.

    Raises:
        ProbeError: the run folder can't be made (there is no stream yet to say it in).
    """
    spec = resolved.spec
    for chosen in (*spec.select, *spec.ignore):
        if not any(code.startswith(chosen) for code in ENTRIES):
            raise UsageError(
                f"--select/--ignore: no finding's code begins with {chosen!r}",
                "probe-tui --list-checks lists them",
            )
    if live is not None:
        loader = partial(adopt, live=live)
    elif until == "flow":
        loader = partial(load, may_lack_rollouts=True)
    folder = RunFolder(Path(spec.out), resolved) if spec.out else None
    driver = _Driver([*([folder.append] if folder else []), *sinks], spec.checkpoint, until)
    run = RunInfo(folder=spec.out, status="partial", exit_code=ENGINE_DIED)

    def failed(message: str, remedy: str, exit_code: int) -> None:
        driver(Failed(message=message, remedy=remedy, run=msgspec.structs.replace(run, exit_code=exit_code)))

    def stopped_by(error: ProbeError) -> None:
        # A full disk that stops the run may take these words too: the report and other readers have them.
        if error.code:
            with suppress(ProbeError):
                driver(FindingEvent(finding=_stopping(error)))
        with suppress(ProbeError):
            failed(error.message, error.remedy, error.exit_code)

    try:
        # Closed, not left to the garbage collector: an interrupted virtual step is taken back here.
        with closing(probe_run(resolved, until, loader, live)) as stream, _heartbeats(driver, gate):
            for event in stream:
                driver(event)
                if gate is not None:
                    gate(event, driver)
        code = exit_code(driver.report, spec)
        driver(Finished(run=msgspec.structs.replace(run, status="complete", exit_code=code)))
    except ProbeError as error:
        stopped_by(error)
    except (KeyboardInterrupt, StopRequested):
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
        folder.close()
    return driver.report


def exit_code(report: Report, spec: RunSpec) -> int:
    """0, or 1 where a finding that counts is at or above `--fail-on`; a consequence counts as its cause."""
    return int(any(spec.counts(f.cause or f.code, f.status) for f in report.findings))


class _Driver:
    """Stamps each event, folds it into the report, hands it to the sinks; one thread at a time."""

    def __init__(self, sinks: Sequence[Sink], checkpoint: str | None, until: Until) -> None:
        self.report = empty()
        self._until = until
        self._checkpoint = checkpoint
        self._sinks = list(sinks)
        self._roots: dict[str, str] = {}
        self._seq = 0
        self._begin = self._last = time.monotonic()
        self._lock = threading.RLock()
        self._beat_failed: ProbeError | None = None

    def __call__(self, event: AnyEvent) -> None:
        with self._lock:
            self._hand_on(event)
            failed, self._beat_failed = self._beat_failed, None
        if failed is not None:
            raise failed

    def beat(self) -> None:
        """A sign of life, from another thread: a full disk that it meets stops the run at its next event."""
        with self._lock:
            try:
                self._hand_on(Heartbeat())
            except ProbeError as error:
                self._beat_failed = error

    def _addressed(self, found: Finding) -> Finding:
        """Remedies name this run's checkpoint, so that they can be typed as they stand."""
        if self._checkpoint is None or not found.remedy.commands:
            return found
        path = shlex.quote(self._checkpoint)
        commands = [re.sub(r"\bCHECKPOINT\b", lambda _: path, line) for line in found.remedy.commands]
        if self._until == "flow":
            commands = [
                re.sub(r"^(probe-tui (?!.*--doctor)[^-].*)", r"\1 --doctor", line) for line in commands
            ]
        remedy = msgspec.structs.replace(found.remedy, commands=commands)
        return msgspec.structs.replace(found, remedy=remedy)

    def _hand_on(self, event: AnyEvent) -> None:
        self._seq += 1
        now = time.monotonic()
        if isinstance(event, FindingEvent):
            # A check's cost is the time since the event before it.
            took = 1000 * (now - self._last)
            found = msgspec.structs.replace(event.finding, duration_ms=took, cause=self._cause(event.finding))
            event = msgspec.structs.replace(event, finding=self._addressed(found))
        self._last = now
        stamped = msgspec.structs.replace(event, seq=self._seq, time=now - self._begin)
        self.report = fold(self.report, stamped)
        lost: ProbeError | None = None
        for sink in tuple(self._sinks):
            try:
                sink(stamped)
            except ProbeError as error:
                # A full disk stops the run, not the readers that can still hear of it.
                self._sinks.remove(sink)
                lost = error
        if lost is not None:
            raise lost

    def _cause(self, found: Finding) -> str:
        """The root of what fired before and explains this finding; empty where there is none."""
        if found.status not in FIRED:
            return ""
        known = (self._roots[code] for code in ENTRIES[found.code].causes if code in self._roots)
        cause = next(known, "")
        self._roots.setdefault(found.code, cause or found.code)
        return cause


@contextmanager
def _heartbeats(driver: _Driver, gate: Gate | None) -> Iterator[None]:
    """A sign of life every few seconds while something listens: a long forward pass says nothing."""
    if gate is None:
        yield
        return
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(HEARTBEAT_SECONDS):
            driver.beat()

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


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
    memory = memory_ran_out(error)
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
