"""ROLL002, ROLL003 and ROLL016."""

from __future__ import annotations

import pytest

from probe_engine.checks import advantages as check
from probe_engine.estimators.advantages import advantages
from probe_engine.sources.rollouts.grouping import RolloutGroup
from probe_engine.sources.rollouts.tokens import Rollout
from probe_engine.types import Group, Response

REWARDS = [[0.0, 1.0, 1.0, 0.0], [0.2, 0.4, 0.6, 1.0], [1.0, 1.0, 1.0, 1.0]]


def groups(*advantages):
    return [
        Group(f"g{n}", "", (1,), tuple(Response((1,), "", a) for a in values))
        for n, values in enumerate(advantages)
    ]


@pytest.mark.parametrize(
    ("advantages", "some", "all_"),
    [
        ([(1, -1), (0.5, 0)], "ok", "ok"),
        ([(1, -1), (0, 0)], "info", "ok"),
        ([(0, 0), (0, 0)], "info", "fail"),
    ],
)
def test_zero_advantages(advantages, some, all_):
    zero, every = check.zero_advantages(groups(*advantages))
    assert (zero.code, zero.status, every.code, every.status) == ("ROLL002", some, "ROLL003", all_)


def logged(rewards, values):
    def rollout(line, reward, advantage):
        return Rollout(
            line=line,
            group=None,
            prompt_text="p",
            prompt=(3,),
            text="",
            tokens=(1,),
            reward=reward,
            advantage=advantage,
            logprobs=None,
            terminated=True,
            ending="logged",
            from_text=False,
        )

    return [
        RolloutGroup(tuple(rollout(4 * n + g + 1, *pair) for g, pair in enumerate(zip(r, a, strict=True))))
        for n, (r, a) in enumerate(zip(rewards, values, strict=True))
    ]


@pytest.mark.parametrize("scale", ["group", "none", "batch"])
def test_what_the_trainer_makes_of_the_rewards_is_known(scale):
    found = check.normalised(logged(REWARDS, advantages(REWARDS, scale)))
    assert (found.code, found.status) == ("ROLL016", "ok")


def test_the_rule_is_said():
    leave_one_out = [[r - (sum(g) - r) / 3 for r in g] for g in REWARDS]
    assert "leave-one-out" in check.normalised(logged(REWARDS, leave_one_out)).message


def test_other_rewards_than_the_logged_ones():
    shifted = [advantages(REWARDS, "none")[i] for i in (1, 2, 0)]
    found = check.normalised(logged(REWARDS, shifted))
    assert found.status == "warn"
    assert "line 1: " in found.message


@pytest.mark.parametrize(("rewards", "values"), [([[None] * 2], [[1.0, -1.0]]), ([[1.0, 0.0]], [[None] * 2])])
def test_it_waits_for_both(rewards, values):
    assert check.normalised(logged(rewards, values)).status == "skip"
