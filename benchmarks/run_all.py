"""Runs the benchmarks one after the other and writes benchmarks/RESULTS.md.

Each benchmark is a section of that file; `--only` renews some sections and leaves the others as they are. A
run that fails is written down as failed.

python benchmarks/run_all.py [--only NAME ...] [--model smollm2|tiny] [--out FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from _figures import Limit, written
from _load import company

HERE = Path(__file__).parent
PREFACE = """# Results

Made by `make bench`. Times are medians of rounds in alternation, ratios are of one run; memory is above the
loaded model. Each script's docstring says what it compares. All runs ask for huge pages, as `probe-tui` does.
"""
HUGE_PAGES = {"THP_MEM_ALLOC_ENABLE": "1"}
"""What torch reads as it is loaded."""


@dataclass(frozen=True)
class Benchmark:
    """A script and what it is run with."""

    name: str
    """The script's, without its ending."""
    title: str
    runs: tuple[str, ...]
    """Arguments of each run."""


BENCHMARKS = (
    Benchmark(
        "fused_vs_step",
        "The probe beside one training step",
        (
            "--model smollm2 --rounds 3 --lean",
            "--model smollm2 --rounds 2",
            "--model smollm2 --sequences 32 --tokens 256 --rounds 1 --lean",
            "--model smollm2 --full --rounds 2 --lean",
            "--model tiny --rounds 5 --lean",
            "--model tiny --rounds 5",
            "--model tiny --full --rounds 5",
        ),
    ),
    Benchmark(
        "literal",
        "Beside the literal algorithm",
        (
            "--model smollm2 --rounds 3 --probe",
            "--model smollm2 --sequences 32 --tokens 256 --rounds 1",
            "--model tiny --rounds 5 --probe",
        ),
    ),
    Benchmark(
        "per_sample",
        "Beside per-sample gradient libraries",
        ("--model smollm2 --rounds 3", "--model tiny --rounds 5", "--model tiny --full --rounds 5"),
    ),
    Benchmark("growth", "Growth with the batch", ("--model smollm2 --rounds 2", "--model tiny --rounds 5")),
    Benchmark(
        "memory",
        "Memory of each method",
        (
            "--model smollm2",
            "--model smollm2 --full --runs step probe fused --prompts 8 16",
            "--model tiny",
        ),
    ),
    Benchmark("ragged", "Lengths that differ", ("--model smollm2 --rounds 3", "--model tiny --rounds 5")),
    Benchmark(
        "x_estimators",
        "The Rao-Blackwell form of X",
        ("--model smollm2 --rounds 3", "--model tiny --rounds 5"),
    ),
    Benchmark("startup", "Start-up", ("",)),
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Writes the file; 1 where a run failed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [one.name for one in BENCHMARKS]
    parser.add_argument(
        "--only", nargs="+", choices=names, default=names, metavar="NAME", help=" ".join(names)
    )
    parser.add_argument("--model", choices=("smollm2", "tiny"), help="only the runs on this model")
    parser.add_argument("--out", type=Path, default=HERE / "RESULTS.md")
    options = parser.parse_args(arguments)
    failed = False
    for benchmark in (one for one in BENCHMARKS if one.name in options.only):
        outcomes = [outcome(benchmark, run) for run in chosen(benchmark.runs, options.model)]
        failed |= any(isinstance(one.figures, str) for one in outcomes)
        renew(options.out, benchmark, section(benchmark, outcomes))
    if failed:
        raise SystemExit(1)


@dataclass(frozen=True)
class Outcome:
    """What came of a run."""

    command: str
    figures: Mapping[str, Any] | str
    """Or why there are none."""
    seconds: float
    company: float
    """Cores that other programs used meanwhile."""


def chosen(runs: Sequence[str], model: str | None) -> list[str]:
    """Those on this model, or on none."""
    return [run for run in runs if model is None or "--model" not in run or f"--model {model}" in run]


def outcome(benchmark: Benchmark, run: str) -> Outcome:
    """Runs it; what it says on standard error is passed on."""
    arguments = [f"{benchmark.name}.py", *run.split()]
    command = " ".join(["python", f"benchmarks/{arguments[0]}", *arguments[1:]])
    narrate(command)
    begun = time.monotonic()
    with (
        company() as others,
        subprocess.Popen(
            [sys.executable, HERE / arguments[0], *arguments[1:], "--json"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **HUGE_PAGES},
        ) as process,
    ):
        assert process.stdout is not None
        assert process.stderr is not None
        last: deque[str] = deque(maxlen=1)
        for line in filter(str.strip, process.stderr):
            narrate(f"  {line.rstrip()}")
            last.append(line.strip())
        printed = process.stdout.read()
    seconds = time.monotonic() - begun
    narrate(f"  {seconds:.0f} s")
    said = f"exit code {process.returncode}: {''.join(last)}"
    return Outcome(command, said if process.returncode else json.loads(printed), seconds, others.cores)


def section(benchmark: Benchmark, outcomes: Sequence[Outcome]) -> str:
    """A benchmark's results in Markdown."""
    machine = f"{date.today():%Y-%m-%d}, {os.cpu_count()} cores, {processor()}"
    return "\n\n".join([f"## {benchmark.title}", machine, *map(rendered, outcomes)]) + "\n"


def rendered(one: Outcome) -> str:
    """A run's setting and its figures, those that have a limit first."""
    took = f"{one.seconds:.0f} s, in which other programs used {one.company:.2f} cores"
    if isinstance(one.figures, str):
        return f"`{one.command}`: {took}\n\n**failed**: {one.figures}"
    limits = {name: Limit(**limit) for name, limit in one.figures["limits"].items()}
    values = {name: value for name, value in one.figures.items() if name != "limits"}
    setting = ", ".join(f"{name} {value}" for name, value in values.items() if not is_figure(value))
    figures = {name: value for name, value in values.items() if is_figure(value)}
    rows = [
        f"| {name} | {written(figures[name])} | {limit} | {judged(limit, figures[name])} |"
        for name, limit in limits.items()
    ]
    rows += [f"| {name} | {written(value)} | | |" for name, value in figures.items() if name not in limits]
    table = "\n".join(["| figure | found | limit | |", "|---|---|---|---|", *rows])
    return f"`{one.command}`: {took}\n\n{setting}\n\n{table}"


def is_figure(value: object) -> bool:
    """Measured, or meant to be; settings are whole numbers and words."""
    return isinstance(value, float) or str(value).startswith("not run")


def judged(limit: Limit, found: object) -> str:
    """In a word."""
    return "met" if isinstance(found, float) and limit.met(found) else "**missed**"


def renew(path: Path, benchmark: Benchmark, text: str) -> None:
    """Puts a section into the file, in the benchmarks' order."""
    before = path.read_text("utf-8") if path.is_file() else ""
    sections = {part.partition("\n")[0]: part for part in re.split(r"^(?=## )", before, flags=re.MULTILINE)}
    sections[f"## {benchmark.title}"] = text
    ordered = [sections[title] for one in BENCHMARKS if (title := f"## {one.title}") in sections]
    path.write_text("\n".join([PREFACE, *(part.rstrip() + "\n" for part in ordered)]), "utf-8")


def processor() -> str:
    """Its name, as Linux tells it."""
    found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return found[1] if found else platform.machine()


def narrate(line: str) -> None:
    """On standard error."""
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
