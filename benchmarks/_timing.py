"""Seconds of several things, measured in turns: what slows the machine for a while slows them all."""

from __future__ import annotations

import sys
import time
from collections import defaultdict
from collections.abc import Callable
from statistics import median

import torch

Run = Callable[[], dict[str, float]]
"""Does something; returns the seconds that it took, by name."""


def clocked(name: str, call: Callable[[], object]) -> Run:
    """A call as a run of that name."""

    def run() -> dict[str, float]:
        begun = _now()
        call()
        return {name: _now() - begun}

    return run


def alternated(rounds: int, *runs: Run) -> dict[str, float]:
    """Each run once a round; medians over the rounds."""
    found: defaultdict[str, list[float]] = defaultdict(list)
    for number in range(rounds):
        print(f"round {number + 1} of {rounds}", file=sys.stderr, flush=True)
        for run in runs:
            for name, seconds in run().items():
                found[name].append(seconds)
    return {name: median(seconds) for name, seconds in found.items()}


def _now() -> float:
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return time.perf_counter()
