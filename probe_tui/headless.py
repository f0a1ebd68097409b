"""Runs without a screen: `--json`, `--plain`, `--doctor`."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Literal

from probe_engine.errors import INTERRUPTED
from probe_engine.report import encode
from probe_engine.spec import Resolved
from probe_tui.output import kept_for_data, write
from probe_tui.plain import Plain


def run(
    resolved: Resolved, *, as_json: bool, until: Literal["flow", "verdict"], verbose: bool = False
) -> int:
    """Runs and writes; returns the exit code.

    Standard output is data: the report with `as_json`, else the text. Standard error is narration.
    """
    narration = sys.stderr
    reader = Plain(narration if as_json else sys.stdout, narration, verbose=verbose or not as_json)
    # Torch is loaded here, after every cheap way to be wrong.
    with _leaving_at_once():
        from probe_engine.execution import execute

    with kept_for_data() if as_json else nullcontext():
        report = execute(resolved, until=until, sinks=[reader])
    if as_json:
        write(sys.stdout.buffer, encode(report))  # JSON is UTF-8, whatever the terminal speaks
    return report.run.exit_code


@contextmanager
def _leaving_at_once() -> Iterator[None]:
    """Ctrl-C ends the process: raised inside an import, libraries turn it into errors of other kinds.

    Nothing has been found yet that a partial report could keep.
    """
    previous = signal.signal(signal.SIGINT, lambda *_: os._exit(INTERRUPTED))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)


def demo_checkpoint() -> Path:
    """The demo checkpoint, made on first use."""
    from probe_engine.demo import ensure_demo

    return ensure_demo(narrate=lambda line: print(line, file=sys.stderr, flush=True))
