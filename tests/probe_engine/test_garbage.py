"""The collector passes over what was there before, and is as it was afterwards."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from probe_engine.environment.garbage import older_objects_left_alone


@pytest.fixture(autouse=True)
def nothing_frozen() -> Iterator[None]:
    gc.unfreeze()
    yield
    gc.unfreeze()


def test_inside_the_heap_is_frozen_and_new_cycles_are_still_freed() -> None:
    class Cycle:
        alive = 0

        def __init__(self) -> None:
            self.me = self
            Cycle.alive += 1

        def __del__(self) -> None:
            Cycle.alive -= 1

    with older_objects_left_alone():
        assert gc.get_freeze_count() > 0
        Cycle()
        gc.collect()
        assert Cycle.alive == 0
    assert gc.get_freeze_count() == 0


def test_what_the_caller_has_frozen_stays_frozen() -> None:
    gc.freeze()
    with older_objects_left_alone():
        pass
    assert gc.get_freeze_count() > 0


def test_an_error_passes_and_leaves_nothing_frozen() -> None:
    with pytest.raises(RuntimeError, match="on the way"), older_objects_left_alone():
        raise RuntimeError("on the way")
    assert gc.get_freeze_count() == 0
