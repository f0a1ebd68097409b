"""The load that the screen is measured beside: a probe whose stage `measure` takes both cores for a while."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from probe_engine.demo import ensure_demo
from probe_engine.demo.recipe import Recipe
from probe_engine.events import AnyEvent, StageFinished, StageStarted, Units
from probe_tui.feeds.tail import Tail

RECIPE = Recipe(hidden_size=256, layers=16, pretrain_steps=40, pretrain_batch=8, grpo_steps=2)
"""The demo with a larger model that has learnt nothing: some 20 s of `measure` on two cores."""
LOOK_SECONDS = 0.05
TICKS = os.sysconf("SC_CLK_TCK")


def checkpoint(cache: Path) -> Path:
    """The load's checkpoint, made on first use."""
    return ensure_demo(cache, recipe=RECIPE)


class Watch:
    """Follows a run's events from beside it."""

    def __init__(self, run: Path) -> None:
        self._tail = Tail(run / "events.jsonl")
        self._events: list[AnyEvent] = []

    def until(self, happened: Callable[[list[AnyEvent]], bool], seconds: float = 300.0) -> float:
        """Waits for it; returns when it was seen.

        Raises:
            TimeoutError: it did not happen, or the run ended before.
        """
        deadline = time.monotonic() + seconds
        while not self.now(happened):
            if self._tail.ended or time.monotonic() > deadline:
                raise TimeoutError(f"the run has not come so far; its last event: {self._events[-1:]}")
            time.sleep(LOOK_SECONDS)
        return time.monotonic()

    def now(self, happened: Callable[[list[AnyEvent]], bool]) -> bool:
        """Whether it has happened."""
        self._events += self._tail.poll().events
        return happened(self._events)

    def seconds(self, stage: str) -> float:
        """How long a stage took, by the engine's own clock."""
        return next(e.seconds for e in self._events if isinstance(e, StageFinished) and e.stage == stage)


def measuring(events: list[AnyEvent]) -> bool:
    """The stage has begun, and there is something to see."""
    started = any(isinstance(e, StageStarted) and e.stage == "measure" for e in events)
    return started and sum(isinstance(e, Units) for e in events) > 1


def measured(events: list[AnyEvent]) -> bool:
    """The stage is over."""
    return any(isinstance(e, StageFinished) and e.stage == "measure" for e in events)


def cpu_seconds(pid: int) -> float:
    """What a process has used, without its children."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


@dataclass
class Company:
    """Cores that other programs used meanwhile: what makes figures of a shared machine worth little."""

    cores: float = 0.0


@contextmanager
def company() -> Iterator[Company]:
    """Measures it. Children count once they are waited for: inside, no process may begin before."""
    found = Company()
    began, busy, own = time.monotonic(), _busy(), _own()
    yield found
    found.cores = max(0.0, (_busy() - busy - (_own() - own)) / (time.monotonic() - began))


def wait_for_quiet(seconds: float, busy: float = 0.1) -> None:
    """Until less than this share of a core is in use for two seconds; `seconds` at most."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with company() as others:
            time.sleep(2)
        if others.cores < busy:
            return


def _busy() -> float:
    user, nice, system, _, _, irq, softirq, steal, *_ = map(
        int, Path("/proc/stat").read_text().partition("\n")[0].split()[1:]
    )
    return (user + nice + system + irq + softirq + steal) / TICKS


def _own() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in used)
