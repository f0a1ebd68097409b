"""Garbage collection that does not look through what was there before."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def older_objects_left_alone() -> Iterator[None]:
    """Inside, the collector passes over all objects that exist already.

    A process with a model in it holds a million of them, and one look through them takes a third of a second;
    graphs that come and go make it look every few micro-batches. A caller's own `gc.freeze` stays as it is.
    """
    if gc.get_freeze_count():
        yield
        return
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
