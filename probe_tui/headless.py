"""Runs without a screen: `--json`, `--plain`, `--doctor`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Literal

from probe_engine.report import encode
from probe_engine.spec import Resolved
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
    from probe_engine.execution import execute

    report = execute(resolved, until=until, sinks=[reader])
    if as_json:
        sys.stdout.write(encode(report).decode())
        sys.stdout.flush()
    return report.run.exit_code


def demo_checkpoint() -> Path:
    """The demo checkpoint, made on first use."""
    from probe_engine.demo import ensure_demo

    return ensure_demo(narrate=lambda line: print(line, file=sys.stderr, flush=True))
