"""The worker: `python -m probe_engine RUN` reads RUN/spec.json and appends to RUN/events.jsonl."""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec

from probe_engine.errors import ProbeError
from probe_engine.pipeline import execute
from probe_engine.sources.run_folder import read_spec


def main(arguments: list[str]) -> int:
    """Runs one spec; the exit code is the run's."""
    if len(arguments) != 1:
        sys.stderr.write("usage: python -m probe_engine RUN\n")
        return 2
    try:
        resolved = read_spec(Path(arguments[0]))
        spec = msgspec.structs.replace(resolved.spec, out=arguments[0])
        return execute(msgspec.structs.replace(resolved, spec=spec)).run.exit_code
    except ProbeError as error:
        sys.stderr.write(f"{error.message}\n{error.remedy}\n")
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
