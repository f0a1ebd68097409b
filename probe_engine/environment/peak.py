"""The most memory that was taken while something ran."""

from __future__ import annotations

import ctypes
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import torch

INTERVAL = 0.01
"""Seconds between two looks at the process's memory: a pass over a micro-batch takes longer."""


class Peak:
    """Bytes above those at the beginning."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._process = psutil.Process()
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        else:
            _trim()
        self._before = self._most = self._now()

    @property
    def nbytes(self) -> int | None:
        """So far; None where the device does not tell."""
        if self._device.type == "cuda":
            return int(torch.cuda.max_memory_allocated(self._device)) - self._before
        return self._most - self._before if self._device.type == "cpu" else None

    def look(self) -> None:
        """Takes in what is held now."""
        self._most = max(self._most, self._now())

    def _now(self) -> int:
        if self._device.type == "cuda":
            return int(torch.cuda.memory_allocated(self._device))
        return int(self._process.memory_info().rss)


def _trim() -> None:
    """Gives freed pages back to the system: glibc keeps them, and they would hide what is taken next."""
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)


@contextmanager
def watched(device: torch.device) -> Iterator[Peak]:
    """Of the CUDA device, whose count of the peak begins anew; else of this process."""
    peak = Peak(device)
    if device.type != "cpu":
        yield peak
        return
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(INTERVAL):
            peak.look()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        ended.set()
        thread.join()
