"""How soon probe-tui answers: seconds from starting the interpreter, medians of several starts in turns.

`first_event` is when the run folder of `probe-tui CHECKPOINT --json` has its first event, on the demo's
checkpoint; `python` starts and ends an interpreter, which the others do too.

python benchmarks/startup.py [--rounds 7] [--json]
"""

from __future__ import annotations

import argparse
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from _figures import Limit, show
from _timing import alternated, clocked

from probe_engine import __version__
from probe_engine.demo import ensure_demo

PROBE = (sys.executable, "-m", "probe_tui")
LOOK_SECONDS = 0.002
LIMITS = {"version_seconds": Limit("<", 0.3), "help_seconds": Limit("<", 0.3)}


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints one table, or its figures as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    checkpoint = ensure_demo()
    seconds = alternated(
        options.rounds,
        clocked("python", partial(ended, sys.executable, "-c", "pass")),
        clocked("version", partial(ended, *PROBE, "--version")),
        clocked("help", partial(ended, *PROBE, "--help")),
        partial(first_event, checkpoint),
    )
    figures = {
        "probe_tui": __version__,
        "python": platform.python_version(),
        "rounds": options.rounds,
        **{f"{name}_seconds": value for name, value in seconds.items()},
    }
    show(figures, LIMITS, as_json=options.json)


def ended(*command: str) -> None:
    """Runs it to its end.

    Raises:
        CalledProcessError: it failed.
    """
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)


def first_event(checkpoint: Path) -> dict[str, float]:
    """Until the log has a whole line; the run is then ended.

    Raises:
        ChildProcessError: the run ended without one.
    """
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "run", "events.jsonl")
        begun = time.perf_counter()
        command = [*PROBE, str(checkpoint), "--json", "--out", str(log.parent)]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as run:
            while not (log.is_file() and b"\n" in log.read_bytes()):
                if run.poll() is not None:
                    raise ChildProcessError(f"the run ended with {run.returncode}, without an event")
                time.sleep(LOOK_SECONDS)
            seconds = time.perf_counter() - begun
            run.kill()
    return {"first_event": seconds}


if __name__ == "__main__":
    main()
