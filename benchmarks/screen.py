"""What the screen costs the engine, and how soon it answers while the engine works both cores.

python benchmarks/screen.py [--cache FOLDER] [--rounds N] [--keys N] [--wait SECONDS] [--tries N]
                            [--json]

The app runs in a terminal of its own (a pty) and drives a real engine; headless runs of the same probe
alternate with it. Linux only: who uses the cores is read from /proc.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from statistics import median, quantiles
from typing import Any, Protocol, TypeVar

import platformdirs
from _load import Watch, checkpoint, company, cpu_seconds, measured, measuring, wait_for_quiet
from _terminal import Answer, Frame, Terminal

PROBE = (sys.executable, "-m", "probe_tui")
FIRST_PAINT_SECONDS, ANSWER_SECONDS, REPAINTS, SLOWDOWN = 0.5, 0.05, 4.0, 1.05
STARTS = 7
"""Of each command that is only started."""
DISTURBED = 0.1
"""Cores that other programs use, above which a run is taken again."""


def shows(pattern: str, *, without: str = "$.") -> Answer:
    """A frame that holds a text, and lacks another; by itself, none lacks."""
    wanted, unwanted = re.compile(pattern), re.compile(without)
    return lambda frame: bool(wanted.search(frame.text)) and not unwanted.search(frame.text)


def moves(frame: Frame) -> bool:
    """A frame that draws in the panel's middle, where nothing changes by itself on the tab Checks."""
    return frame.touches(range(6, 38), range(40, 110))


# Escape as terminals send it that know the protocol Textual asks for; others hold it back for 100 ms
# to tell it from the beginning of another key.
ESCAPE, DOWN, UP = "\x1b[27u", "\x1b[B", "\x1b[A"
UNIT, HELP = r"unit \d+ of", "pause between micro-batches"
KEYS: tuple[tuple[str, str, Answer], ...] = (
    ("Units", "2", shows("reward ± SD")),
    ("reverse", "S", shows("▴")),
    ("sort", "s", shows("▾")),
    ("prompt", "\r", shows(UNIT)),
    ("back", ESCAPE, shows("reward ± SD", without=UNIT)),
    ("Checks", "1", shows("CHECKPOINT")),
    ("down", DOWN, moves),
    ("down", DOWN, moves),
    ("down", DOWN, moves),
    ("up", UP, moves),
    ("help", "?", shows(HELP)),
    ("back", ESCAPE, shows("CHECKPOINT", without=HELP)),
    ("Influence", "3", shows("whose entropy moves")),
    ("Realized", "5", shows("stage realize")),
    ("Entropy", "4", shows("stage estimate")),
    ("Log", "6", shows("engine.log")),
)
"""What is typed, in this order, and what answers it: a text that no frame has before."""


class Disturbed(Protocol):
    """Something measured beside other programs."""

    @property
    def company(self) -> float:
        """Cores that they used."""


D = TypeVar("D", bound=Disturbed)


@dataclass(frozen=True)
class Run:
    """One run of the probe."""

    measure: float
    """Seconds of the stage, by the engine's clock."""
    company: float
    """Cores that other programs used meanwhile."""
    repaints: float = 0.0
    """A second, while it measured."""
    cpu: float = 0.0
    """Share of a core that the screen used while it measured."""


@dataclass(frozen=True)
class Typed:
    """Keys and their answers, of one run."""

    seconds: list[tuple[str, float]]
    company: float


def headless(target: Path, run: Path) -> Run:
    """The same probe without a screen, ended once it has measured."""
    with company() as others:
        engine = subprocess.Popen(
            [*PROBE, str(target), "--json", "--out", str(run)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        watch = Watch(run)
        watch.until(measured)
        engine.terminate()
        engine.wait()
    return Run(watch.seconds("measure"), others.cores)


def watched(target: Path, run: Path) -> Run:
    """With the screen open on Units, the tab that grows; nobody types."""
    with company() as others, live(target, run) as (terminal, watch):
        terminal.send("2")
        began = watch.until(measuring)
        used = cpu_seconds(terminal.process.pid)
        ended = watch.until(measured)
        used = cpu_seconds(terminal.process.pid) - used
        painted = sum(began < frame.at <= ended for frame in terminal.frames)
    lasted = ended - began
    return Run(watch.seconds("measure"), others.cores, painted / lasted, used / lasted)


def typed(target: Path, run: Path, count: int) -> Typed:
    """Seconds from a key to the frame that answers it, while the engine measures."""
    pauses = random.Random(str(run))
    found: list[tuple[str, float]] = []
    with company() as others, live(target, run) as (terminal, watch):
        watch.until(measuring)
        for name, key, answer in islice(cycle(KEYS), count):
            # Uneven: not in step with the screen's own refreshes.
            time.sleep(pauses.uniform(0.15, 0.4))
            at = terminal.send(key)
            seen = terminal.wait(answer, since=at)
            if watch.now(measured):
                break
            found.append((name, seen.at - at))
    return Typed(found, others.cores)


@contextmanager
def live(target: Path, run: Path) -> Iterator[tuple[Terminal, Watch]]:
    """The app with an engine that was told to run all; both are gone afterwards."""
    with Terminal([*PROBE, str(target), "--out", str(run)], environ()) as terminal:
        try:
            terminal.wait(shows("n runs"), seconds=60)
            terminal.send("a")
            yield terminal, Watch(run)
        finally:
            leave(terminal)


def leave(terminal: Terminal) -> None:
    """Quits; where the app asks what to do with its engine, stops it."""
    terminal.send(ESCAPE)  # what lies on top
    at = terminal.send("\x11")
    with suppress(TimeoutError):  # it does not ask
        terminal.wait(shows("stop it and leave"), since=at)
        terminal.send("s")
    terminal.process.wait(60)


def first_paints(*arguments: str) -> list[float]:
    """Seconds from starting the interpreter to the first frame, of several starts."""
    found = []
    for _ in range(STARTS):
        with (
            tempfile.TemporaryDirectory() as folder,
            Terminal([*PROBE, *arguments], environ() | {"PROBE_OUT": f"{folder}/run"}) as terminal,
        ):
            found.append(terminal.wait(shows("Stages")).at - terminal.began)
            leave(terminal)
    return found


def durations(*arguments: str) -> list[float]:
    """Seconds that a command takes, of several runs."""
    found = []
    for _ in range(STARTS):
        began = time.monotonic()
        subprocess.run([*PROBE, *arguments], stdout=subprocess.DEVNULL, check=True)
        found.append(time.monotonic() - began)
    return found


def environ() -> dict[str, str]:
    """A terminal that can do everything."""
    inherited = {k: v for k, v in os.environ.items() if k not in ("CI", "NO_COLOR")}
    return inherited | {"TERM": "xterm-256color", "COLORTERM": "truecolor"}


def main() -> None:
    """Prints one table, ratios first."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    default = Path(platformdirs.user_cache_dir("probe-tui")) / "bench-screen"
    parser.add_argument("--cache", type=Path, default=default, help="where the load's checkpoint is kept")
    parser.add_argument("--rounds", type=int, default=5, help="pairs of runs, with and without the screen")
    parser.add_argument("--keys", type=int, default=64, help="keys typed")
    parser.add_argument("--wait", type=float, default=60, help="seconds to wait for other programs to rest")
    parser.add_argument("--tries", type=int, default=3, help="for each run, to find it undisturbed")
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    target = checkpoint(chosen.cache)
    with tempfile.TemporaryDirectory() as folder:
        quiet = Quiet(Path(folder), chosen.wait, chosen.tries)
        figures = measure(target, quiet, chosen.rounds, chosen.keys)
    print(json.dumps(figures, indent=2) if chosen.json else table(figures))


@dataclass(frozen=True)
class Quiet:
    """Looks for moments at which other programs rest."""

    folder: Path
    """For the runs' folders."""
    wait: float
    """Seconds, before each run."""
    tries: int

    def take(self, name: str, measure: Callable[[Path], D]) -> D:
        """The least disturbed of as many runs as it takes to find one that is next to undisturbed."""
        found: list[D] = []
        while not found or (found[-1].company > DISTURBED and len(found) < self.tries):
            wait_for_quiet(self.wait)
            found.append(measure(self.folder / f"{name}-{len(found)}"))
            narrate(f"{name}: {found[-1]}")
        return min(found, key=lambda one: one.company)


def measure(target: Path, quiet: Quiet, rounds: int, keys: int) -> dict[str, Any]:
    """All figures, in seconds."""
    alone: list[Run] = []
    seen: list[Run] = []
    for number in range(rounds):
        kinds = [(headless, alone), (watched, seen)]
        for kind, runs in kinds if number % 2 == 0 else reversed(kinds):
            runs.append(quiet.take(f"{kind.__name__}-{number}", partial(kind, target)))
    answered: list[Typed] = []
    while (missing := keys - sum(len(one.seconds) for one in answered)) > 0:
        answered.append(quiet.take(f"typed-{len(answered)}", partial(typed, target, count=missing)))
    recorded = quiet.folder / "watched-0-0"
    wait_for_quiet(quiet.wait)
    return {
        "slowdown": median(s.measure / a.measure for s, a in zip(seen, alone, strict=True)),
        "headless": [asdict(run) for run in alone],
        "screen": [asdict(run) for run in seen],
        "typed": [asdict(one) for one in answered],
        "first_paint": {
            "--replay RUN": first_paints("--replay", str(recorded)),
            "CHECKPOINT": first_paints(str(target)),
        },
        "commands": {name: durations(name) for name in ("--version", "--help")},
    }


def table(figures: dict[str, Any]) -> str:
    """What was found beside what is wanted."""
    alone, seen = figures["headless"], figures["screen"]
    waited = sorted(seconds for one in figures["typed"] for _, seconds in one["seconds"])
    p95 = quantiles(waited, n=20, method="inclusive")[-1]
    others = [one["company"] for one in (*alone, *seen, *figures["typed"])]

    def middle(runs: list[dict[str, float]], name: str) -> float:
        return median(run[name] for run in runs)

    lines = [
        ("measure, with the screen / headless", f"{figures['slowdown']:.3f}", f"≤ {SLOWDOWN:g}"),
        ("  with the screen, median", f"{middle(seen, 'measure'):.1f} s", ""),
        ("  headless, median", f"{middle(alone, 'measure'):.1f} s", ""),
        ("  cores that the screen used", f"{middle(seen, 'cpu'):.3f}", ""),
        ("repaints a second while it measures", f"{middle(seen, 'repaints'):.1f}", f"≤ {REPAINTS:g}"),
        ("key to answer, 95th percentile", f"{1000 * p95:.0f} ms", f"≤ {1000 * ANSWER_SECONDS:.0f} ms"),
        ("  median", f"{1000 * median(waited):.0f} ms", f"of {len(waited)} keys"),
        ("  slowest", f"{1000 * waited[-1]:.0f} ms", ""),
        *(
            (f"first paint, {name}", f"{median(found):.2f} s", f"< {FIRST_PAINT_SECONDS:g} s")
            for name, found in figures["first_paint"].items()
        ),
        *((name, f"{median(found):.2f} s", "") for name, found in figures["commands"].items()),
        ("cores that other programs used", f"{median(others):.2f}", f"at most {max(others):.2f}"),
    ]
    return "\n".join(f"{name:<40}{value:>10}  {target}".rstrip() for name, value, target in lines)


def narrate(line: str) -> None:
    """On standard error."""
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
