from __future__ import annotations

import pytest

from probe_engine.errors import ProbeError
from probe_engine.sources.rollouts.locate import Located, locate
from probe_engine.sources.rollouts.record import RawRollout, RolloutSource
from probe_engine.sources.rollouts.steps import at_one_step


@pytest.fixture
def checkpoint(tmp_path):
    folder = tmp_path / "out" / "checkpoint-7"
    folder.mkdir(parents=True)
    return folder


def touch(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def test_order_of_preference(checkpoint):
    out = checkpoint.parent
    stale = touch(out / "completions" / "completions_00007.parquet")
    assert locate(checkpoint, 7, None) == Located(stale, 7)
    mixed = touch(out / "rollouts.jsonl")
    assert locate(checkpoint, 7, None) == Located(mixed)
    verl = touch(out / "8.jsonl")
    assert locate(checkpoint, 7, None) == Located(verl, 8)
    right = touch(out / "completions" / "completions_00008.parquet")
    assert locate(checkpoint, 7, None) == Located(right, 8)


def test_a_folder_is_searched_and_a_file_is_taken(checkpoint, tmp_path):
    right = touch(tmp_path / "elsewhere" / "completions_00008.parquet")
    touch(tmp_path / "elsewhere" / "completions_00009.parquet")
    assert locate(checkpoint, 7, right.parent) == Located(right, 8)
    other = touch(tmp_path / "anything.txt")
    assert locate(checkpoint, 7, other) == Located(other)


def test_the_only_log_is_taken_and_of_two_none(checkpoint):
    one = touch(checkpoint.parent / "completions" / "log.jsonl")
    assert locate(checkpoint, 7, None) == Located(one)
    touch(one.with_name("other.jsonl"))
    with pytest.raises(ProbeError, match="found none that fit"):
        locate(checkpoint, 7, None)


def test_rollouts_of_a_far_step_are_no_guess(checkpoint):
    touch(checkpoint.parent / "completions" / "completions_00100.parquet")
    with pytest.raises(
        ProbeError, match=r"rollouts of step 8 .*completions_00008.*completions_00100"
    ) as error:
        locate(checkpoint, 7, None)
    assert error.value.code == "ROLL017"
    assert any("--prompts" in command for command in error.value.commands)


def test_missing_path_and_no_checkpoint(tmp_path):
    with pytest.raises(ProbeError, match="found nothing"):
        locate(None, None, tmp_path / "none")
    with pytest.raises(ProbeError, match="in no folder"):
        locate(None, None, None)


def source(*steps):
    rows = tuple(
        RawRollout(line=i, prompt="a", response="b", step=step) for i, step in enumerate(steps, start=1)
    )
    return RolloutSource(path="r.jsonl", format="native", rows=rows)


def lines(chosen):
    return [row.line for row in chosen.rows]


def test_rows_of_the_next_step_are_kept():
    chosen = at_one_step(source(7, 8, 8, 9, None), 7)
    assert (chosen.step, lines(chosen)) == (8, [2, 3])
    assert chosen.notes == ("2 rows of other steps set aside",)
    assert [b.line for b in chosen.bad] == [5]


def test_else_those_of_the_same_step():
    chosen = at_one_step(source(7, 6), 7)
    assert (chosen.step, lines(chosen)) == (7, [1])


def test_one_step_is_taken_as_it_is():
    assert at_one_step(source(100, 100), 7).step == 100
    assert at_one_step(source(None, None), 7, named=8).step == 8


def test_several_steps_without_the_right_one():
    with pytest.raises(ProbeError, match=r"step 8.* steps 1, 2"):
        at_one_step(source(1, 2), 7)
    with pytest.raises(ProbeError, match="of one step"):
        at_one_step(source(1, 2), None)
