"""The worker: `python -m probe_engine RUN` reads RUN/spec.json and appends to RUN/events.jsonl.

With `--serve` it stays after the run and runs further specs (`control.Rerun`) with the model that it holds.
"""

from __future__ import annotations

import argparse
import os
import sys
from contextlib import suppress
from pathlib import Path

import msgspec

from probe_engine.control import ControlFile, Gate
from probe_engine.errors import ProbeError
from probe_engine.execution import execute
from probe_engine.sources.run_folder import read_spec
from probe_engine.stages.cached_load import CachedLoad

YIELDING = 10
"""Niceness beside a screen: who types gets a core at once; what the screen leaves is the engine's."""


def main(arguments: list[str]) -> int:
    """Runs one spec, or with `--serve` several; the exit code is the last run's."""
    parser = argparse.ArgumentParser(prog="python -m probe_engine")
    parser.add_argument("run", metavar="RUN", type=Path)
    parser.add_argument("--serve", action="store_true", help="wait for further runs")
    parser.add_argument("--parent", metavar="PID", type=int, help="whose end ends a run that waits")
    given = parser.parse_args(arguments)
    if given.parent is not None:
        os.nice(YIELDING)
    loader = CachedLoad()
    run: Path | None = given.run
    code = 0
    try:
        while run is not None:
            resolved = read_spec(run)
            spec = msgspec.structs.replace(resolved.spec, out=str(run))
            gate = Gate(ControlFile(run), parent=given.parent)
            report = execute(msgspec.structs.replace(resolved, spec=spec), loader=loader, gate=gate)
            code = report.run.exit_code
            if unwritten := next((f for f in report.findings if f.code == "RUN003"), None):
                # Its folder is the one way to tell of it: what is left is to leave with a word.
                with suppress(OSError):
                    sys.stderr.write(f"{unwritten.message}\n")
                return code
            following = gate.wait_for_rerun() if given.serve else None
            run = Path(following.run) if following else None
    except ProbeError as error:
        sys.stderr.write(f"{error.message}\n{error.remedy}\n")
        return error.exit_code
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
