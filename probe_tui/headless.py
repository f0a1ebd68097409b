"""Runs without a screen: `--json`, `--plain`, `--doctor`, `--selftest`."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Literal

from probe_engine.catalogue import ENTRIES
from probe_engine.errors import ENGINE_DIED, INTERRUPTED, ProbeError
from probe_engine.events import AnyEvent, StageStarted
from probe_engine.report import Report, encode
from probe_engine.spec import Resolved
from probe_tui.formats.diagnosis import diagnosis_lines
from probe_tui.formats.github import github
from probe_tui.formats.junit import junit
from probe_tui.formats.selftest import trial_line, trials_json, trials_summary
from probe_tui.output import kept_for_data, say, write
from probe_tui.plain import Plain
from probe_tui.renderables.forecast import forecast_table

Style = Literal["text", "github", "junit"]


def run(resolved: Resolved, *, as_json: bool, verbose: bool = False) -> int:
    """The whole probe; returns the exit code.

    Standard output is data: the report with `as_json`, else the text. Standard error is narration.
    """
    narration = sys.stderr
    reader = Plain(narration if as_json else sys.stdout, narration, verbose=verbose or not as_json)
    # Torch is loaded here, after every cheap way to be wrong.
    with _leaving_at_once():
        from probe_engine.execution import execute

    with kept_for_data() if as_json else nullcontext():
        report = execute(resolved, sinks=[reader])
    if as_json:
        _write_json(report)
    return report.run.exit_code


def plan(resolved: Resolved, *, as_json: bool, verbose: bool = False) -> int:
    """The forecast alone; returns the exit code. What is found on the way is on standard error."""
    with _leaving_at_once():
        from probe_engine.execution import execute

    with kept_for_data():
        reader = Plain(sys.stderr, sys.stderr, verbose=verbose)
        report = execute(resolved, until="forecast", sinks=[reader])
    if as_json:
        _write_json(report)
    elif report.forecast is not None:
        say("\n".join(forecast_table(report.forecast)))
    return report.run.exit_code


def doctor(resolved: Resolved, style: Style, *, as_json: bool, verbose: bool = False) -> int:
    """The gradient-flow check; returns the exit code. Without a checkpoint: of this installation.

    What is found is said at the end, causes first; meanwhile standard error tells of the stages.
    """
    with _leaving_at_once():
        from probe_engine.execution import execute
        from probe_engine.selftest.installation import installation

    here = resolved.spec.checkpoint is None
    with kept_for_data():
        if here:
            report = installation(resolved, [_tell_stages], narrate)
        else:
            report = execute(resolved, until="flow", sinks=[_tell_stages])
    if as_json:
        _write_json(report)
    elif style == "github":
        write(sys.stdout, github(report, resolved.spec))
    elif style == "junit":
        write(sys.stdout.buffer, junit(report, resolved.spec).encode())
    else:
        say("\n".join(diagnosis_lines(report, verbose=verbose, own_model=here)))
        if here and report.run.exit_code == 0:
            say("gradient flows in this installation")
    return report.run.exit_code


def selftest(*, as_json: bool) -> int:
    """Every fault of the catalogue, injected in turn; 1 where one is missed or another fires besides."""
    with _leaving_at_once():
        from probe_engine.selftest.trial import selftest as trials

    rows = []
    following = trials(narrate)
    while True:
        with kept_for_data():
            row = next(following, None)
        if row is None:
            break
        rows.append(row)
        if not as_json:
            say(trial_line(row))
    if as_json:
        write(sys.stdout, trials_json(rows))
    else:
        say(trials_summary(rows))
    return int(not all(row.named for row in rows))


def narrate(line: str) -> None:
    """On standard error."""
    print(line, file=sys.stderr, flush=True)


def _tell_stages(event: AnyEvent) -> None:
    if isinstance(event, StageStarted):
        narrate(f"… {event.stage}")


def _write_json(report: Report) -> None:
    write(sys.stdout.buffer, encode(report))  # JSON is UTF-8, whatever the terminal speaks


@contextmanager
def _leaving_at_once() -> Iterator[None]:
    """Ctrl-C ends the process: raised inside an import, libraries turn it into errors of other kinds.

    Nothing has been found yet that a partial report could keep.

    Raises:
        ProbeError: the libraries can't even be imported together (ENV001).
    """
    previous = signal.signal(signal.SIGINT, lambda *_: os._exit(INTERRUPTED))
    try:
        yield
    except ImportError as error:
        entry = ENTRIES["ENV001"]
        raise ProbeError(
            f"expected torch, transformers and peft to fit each other, importing them failed: {error}",
            entry.remedy,
            code=entry.code,
            commands=entry.commands,
            exit_code=ENGINE_DIED,
        ) from error
    finally:
        signal.signal(signal.SIGINT, previous)


def demo_checkpoint() -> Path:
    """The demo checkpoint, made on first use."""
    from probe_engine.demo import ensure_demo

    return ensure_demo(narrate=narrate)
