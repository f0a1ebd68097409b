from __future__ import annotations

import pytest

from probe_engine.checks import rollouts as check
from probe_engine.sources.rollouts.grouping import RolloutGroup
from probe_engine.sources.rollouts.record import BadRow
from probe_engine.sources.rollouts.tokens import Rollout
from probe_engine.types import Batch, Group, Response, Unit


def rollout(line=1, *, tokens=(1,), reward=None, advantage=0.5, ending="logged", from_text=False):
    return Rollout(
        line=line,
        group=None,
        prompt_text="p",
        prompt=(3,),
        text="",
        tokens=tokens,
        reward=reward,
        advantage=advantage,
        logprobs=None,
        terminated=True,
        ending=ending,
        from_text=from_text,
    )


def group(*rollouts):
    return RolloutGroup(tuple(rollouts))


GOOD = group(rollout(1), rollout(2))


@pytest.mark.parametrize(
    ("bad", "status"), [([], "ok"), ([BadRow(9, "late"), BadRow(2, "no prompt")], "warn")]
)
def test_malformed_rows_are_all_named(bad, status):
    found = check.malformed(bad, 4, ["reward = a"])
    assert (found.code, found.status) == ("ROLL013", status)
    assert "reward = a" in found.message
    if bad:
        assert "2 are not" in found.message
        assert "line 2 for one: no prompt" in found.message
        assert found.evidence["rows"] == ["line 2: no prompt", "line 9: late"]


def test_evaluation_rows_are_named():
    assert check.evaluation_rows([], 4).status == "ok"
    found = check.evaluation_rows([BadRow(3, "no advantage"), BadRow(5, "no advantage")], 4)
    assert (found.code, found.status, found.value) == ("ROLL010", "warn", 2.0)
    assert "4 of them and 2 of an evaluation" in found.message
    assert found.evidence["rows"] == ["line 3: no advantage", "line 5: no advantage"]


@pytest.mark.parametrize(
    ("step", "checkpoint", "status"),
    [(8, 7, "ok"), (7, 7, "warn"), (100, 7, "warn"), (None, 7, "skip"), (8, None, "skip")],
)
def test_neighbouring_step(step, checkpoint, status):
    found = check.neighbouring_step(step, checkpoint)
    assert (found.code, found.status) == ("ROLL017", status)


def test_retokenised():
    assert check.retokenised([rollout()]).status == "ok"
    found = check.retokenised([rollout(), rollout(from_text=True)])
    assert (found.status, found.value) == ("info", 1.0)


@pytest.mark.parametrize(
    ("endings", "status", "says"),
    [
        (["logged", "cut"], "ok", "as they were logged"),
        (["restored", "cut", "logged"], "info", "1 of 3 responses"),
        (["assumed", "cut"], "warn", "1 don't say"),
        (["restored", "lost"], "warn", "1 have none (line 1 for one)"),
    ],
)
def test_endings(endings, status, says):
    found = check.endings([rollout(i, ending=e) for i, e in enumerate(endings)])
    assert (found.code, found.status) == ("ROLL006", status)
    assert says in found.message


@pytest.mark.parametrize(
    ("sieve", "code", "bad"),
    [
        (check.large_enough, "ROLL001", group(rollout(5))),
        (lambda g: check.in_vocabulary(g, 4), "ROLL004", group(rollout(5, tokens=(4,)), rollout(6))),
        (lambda g: check.in_vocabulary(g, 4), "ROLL004", group(rollout(5), rollout(6, tokens=(0, -1)))),
        (check.finite, "ROLL012", group(rollout(5, advantage=float("nan")), rollout(6))),
        (check.finite, "ROLL012", group(rollout(5, reward=float("inf")), rollout(6))),
        (check.finite, "ROLL012", group(rollout(5, advantage=None), rollout(6))),
        (check.finite, "ROLL012", group(rollout(5, advantage=None, reward=1.0), rollout(6))),
    ],
)
def test_what_fails_is_left_out_whole_and_named(sieve, code, bad):
    kept, found = sieve([GOOD, bad])
    assert kept == [GOOD]
    assert (found.code, found.status, found.value) == (code, "fail", 1.0)
    assert "1 of 2 prompts" in found.message
    assert "5" in found.evidence["groups"][0]
    assert found.remedy.text
    kept, found = sieve([GOOD])
    assert (kept, found.status, found.value) == ([GOOD], "ok", 0.0)


def test_rewards_alone_are_enough():
    rewarded = group(rollout(1, advantage=None, reward=1.0), rollout(2, advantage=None, reward=0.0))
    assert check.finite([rewarded])[0] == [rewarded]


def batch(*sizes):
    one = Group("g", "", (1,), (Response((1,), "", 1.0), Response((1,), "", -1.0)))
    units = tuple(Unit(str(i), "E", (one,) * size) for i, size in enumerate(sizes))
    return Batch(units, 4, "option", "dr_grpo", "dr_grpo")


@pytest.mark.parametrize(("b", "status"), [(1, "fail"), (2, "fail"), (3, "warn"), (7, "warn"), (8, "ok")])
def test_enough_units(b, status):
    found = check.enough_units(batch(*[1] * b))
    assert (found.code, found.status, found.value) == ("ROLL014", status, b)


def test_a_smaller_last_block_is_said():
    assert "the last block has 1 prompts only" in check.enough_units(batch(2, 2, 1)).message
    assert "last block" not in check.enough_units(batch(2, 2, 2)).message
