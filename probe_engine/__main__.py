"""The worker: `python -m probe_engine RUN` reads RUN/spec.json and appends to RUN/events.jsonl.

With `--serve` it stays after the run and runs further specs (`control.Rerun`) with the model that it holds.
"""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec

from probe_engine.control import ControlFile, Gate
from probe_engine.errors import ProbeError
from probe_engine.execution import execute
from probe_engine.sources.run_folder import read_spec
from probe_engine.stages.cached_load import CachedLoad


def main(arguments: list[str]) -> int:
    """Runs one spec, or with `--serve` several; the exit code is the last run's."""
    serve = "--serve" in arguments
    folders = [a for a in arguments if a != "--serve"]
    if len(folders) != 1:
        sys.stderr.write("usage: python -m probe_engine [--serve] RUN\n")
        return 2
    loader = CachedLoad()
    run: Path | None = Path(folders[0])
    code = 0
    try:
        while run is not None:
            resolved = read_spec(run)
            spec = msgspec.structs.replace(resolved.spec, out=str(run))
            gate = Gate(ControlFile(run))
            report = execute(msgspec.structs.replace(resolved, spec=spec), loader=loader, gate=gate)
            code = report.run.exit_code
            following = gate.wait_for_rerun() if serve else None
            run = Path(following.run) if following else None
    except ProbeError as error:
        sys.stderr.write(f"{error.message}\n{error.remedy}\n")
        return error.exit_code
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
