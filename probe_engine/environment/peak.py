"""The most memory that was in use while something ran."""

from __future__ import annotations

import ctypes
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import psutil
import torch

INTERVAL = 0.005
"""Seconds between two looks, at least: a pass over a micro-batch takes longer."""
SHARE = 0.01
"""Of the time that looking may take: glibc counts through its free lists, for a millisecond where a large
model left many, and all that allocates waits meanwhile."""


class Peak:
    """Bytes above those at the beginning."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
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
        return _in_use()


@contextmanager
def watched(device: torch.device) -> Iterator[Peak]:
    """Of the CUDA device, whose count of the peak begins anew; else of this process."""
    peak = Peak(device)
    if device.type != "cpu":
        yield peak
        return
    ended = threading.Event()

    def watch() -> None:
        pause = INTERVAL
        while not ended.wait(pause):
            began = time.thread_time()
            peak.look()
            pause = max(INTERVAL, (time.thread_time() - began) / SHARE)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        ended.set()
        thread.join()


class _Mallinfo2(ctypes.Structure):
    """What glibc says of its heaps (`man 3 mallinfo`)."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    )


@cache
def _mallinfo() -> Callable[[], Any] | None:
    function = getattr(ctypes.CDLL(None), "mallinfo2", None) if sys.platform == "linux" else None
    if function is not None:
        function.restype = _Mallinfo2
    return function


def _in_use() -> int:
    """Bytes that were allocated and not freed, as CUDA's allocator counts them too; else what is resident.

    Resident memory holds pieces besides that glibc keeps for later: on a small model it reached 823 MiB where
    331 MiB were in use at most.
    """
    mallinfo = _mallinfo()
    if mallinfo is None:
        return int(psutil.Process().memory_info().rss)
    info = mallinfo()
    return int(info.uordblks + info.hblkhd)
