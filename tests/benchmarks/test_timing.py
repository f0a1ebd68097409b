"""Runs take turns, and medians come out."""

from __future__ import annotations

from itertools import count

import pytest
from _timing import alternated, clocked


def test_every_run_has_its_turn_in_every_round() -> None:
    called: list[str] = []
    alternated(3, clocked("a", lambda: called.append("a")), clocked("b", lambda: called.append("b")))
    assert called == ["a", "b"] * 3


def test_medians_are_taken_by_name() -> None:
    ones, stages = iter([5.0, 1.0, 2.0]), count()
    found = alternated(3, lambda: {"one": next(ones)}, lambda: {"load": 7.0, "stage": float(next(stages))})
    assert found == {"one": 2.0, "load": 7.0, "stage": 1.0}


def test_what_goes_wrong_is_not_a_time() -> None:
    def broken() -> None:
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        alternated(1, clocked("broken", broken))
