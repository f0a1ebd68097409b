"""Grouping, scoring, units."""

from __future__ import annotations

import random

import pytest

from probe_engine.sources.rollouts.grouping import RolloutGroup, by_blocks, by_key
from probe_engine.sources.rollouts.scoring import scored
from probe_engine.sources.rollouts.settings import completion_limit, loss_type, reward_scaling
from probe_engine.sources.rollouts.tokens import Rollout
from probe_engine.sources.rollouts.units import units_of
from probe_engine.spec import RunSpec


def rollout(line, prompt, *, group=None, reward=None, advantage=0.5, tokens=(1,)):
    return Rollout(
        line=line,
        group=group,
        prompt_text=str(prompt),
        prompt=(prompt,),
        text="",
        tokens=tokens,
        reward=reward,
        advantage=advantage,
        logprobs=None,
        terminated=True,
        ending="logged",
        from_text=False,
    )


def lines(groups):
    return [g.lines for g in groups]


def test_by_key_prefers_the_id_and_keeps_file_order():
    rows = [rollout(1, 5), rollout(2, 6, group="x"), rollout(3, 5), rollout(4, 6), rollout(5, 6, group="x")]
    groups, bad = by_key(rows)
    assert lines(groups) == [[1, 3], [2, 5], [4]]
    assert not bad


def test_another_prompt_under_the_same_id_is_left_out():
    groups, bad = by_key([rollout(1, 5, group="x"), rollout(2, 6, group="x"), rollout(3, 5, group="x")])
    assert lines(groups) == [[1, 3]]
    assert [b.line for b in bad] == [2]


def test_blocks_keep_two_draws_of_one_prompt_apart():
    rows = [rollout(i, p) for i, p in enumerate([5, 5, 6, 6, 5, 5, 5, 5], start=1)]
    groups, aside = by_blocks(rows, 2)
    assert lines(groups) == [[1, 2], [3, 4], [5, 6], [7, 8]]
    assert not aside
    assert lines(by_blocks(rows, None)[0]) == [[1, 2], [3, 4], [5, 6, 7, 8]]


def test_evaluation_rows_are_set_aside():
    rows = [rollout(1, 5), rollout(2, 5), rollout(3, 6, advantage=None), rollout(4, 7)]
    groups, aside = by_blocks(rows, 2)
    assert lines(groups) == [[1, 2]]
    assert [(b.line, "evaluation" in b.reason) for b in aside] == [(3, True), (4, True)]


def test_without_any_advantage_no_row_is_an_evaluation_row():
    groups, aside = by_blocks([rollout(1, 5, advantage=None), rollout(2, 5, advantage=None)], 2)
    assert (lines(groups), aside) == ([[1, 2]], [])


def test_a_num_generations_that_fits_no_run_is_not_this_tables():
    assert lines(by_blocks([rollout(1, 5), rollout(2, 5), rollout(3, 6), rollout(4, 6)], 8)[0]) == [
        [1, 2],
        [3, 4],
    ]


def test_logged_advantages_stay_and_others_are_computed():
    logged = RolloutGroup((rollout(1, 5, advantage=0.3), rollout(2, 5, advantage=-9.0)))
    plain = RolloutGroup(
        (rollout(3, 6, advantage=None, reward=0.0), rollout(4, 6, advantage=0.1, reward=2.0))
    )
    groups, origin = scored([logged, plain], "none", "option")
    assert [[r.advantage for r in g.responses] for g in groups] == [[0.3, -9.0], [-1.0, 1.0]]
    assert origin == "logged for 1 of 2 prompts, else rewards, scale_rewards=none (option)"
    assert scored([logged], "none", "option")[1] == "logged"
    assert scored([plain], "group", "trainer")[1] == "rewards, scale_rewards=group (trainer)"


def test_ids_hash_the_prompt_and_number_its_groups_by_content():
    a = RolloutGroup((rollout(1, 5, tokens=(1,)), rollout(2, 5)))
    b = RolloutGroup((rollout(3, 5, tokens=(9,)), rollout(4, 5)))
    c = RolloutGroup((rollout(5, 6), rollout(6, 6)))
    forth, _ = scored([a, b, c], "group", "")
    back, _ = scored([c, b, a], "group", "")
    ids = [g.id for g in forth]
    assert ids == [g.id for g in reversed(back)]
    assert ids[1] == f"{ids[0]}-2"
    assert len(ids[0]) == 16
    assert ids[2][:16] != ids[0]


def groups_of(count):
    made = [RolloutGroup((rollout(2 * n, n), rollout(2 * n + 1, n))) for n in range(count)]
    return scored(made, "group", "")[0]


@pytest.mark.parametrize("kind", ["prompt", "block"])
@pytest.mark.parametrize("count", [1, 2, 9])
def test_roles_and_members_do_not_depend_on_file_order(kind, count):
    groups = list(groups_of(count))
    there = units_of(groups, kind, 2, 0.5, 3)
    random.Random(0).shuffle(groups)
    again = units_of(groups, kind, 2, 0.5, 3)
    assert {(u.id, u.role, u.groups) for u in there} == {(u.id, u.role, u.groups) for u in again}


def test_prompt_units_keep_file_order():
    groups = groups_of(5)
    units = units_of(groups, "prompt", 2, 0.5, 0)
    assert [u.id for u in units] == [g.id for g in groups]


def test_blocks_leave_a_smaller_last_one():
    units = units_of(groups_of(7), "block", 3, 0.5, 0)
    assert [len(u.groups) for u in units] == [3, 3, 1]
    assert [g.id for u in units for g in u.groups] == sorted(g.id for g in groups_of(7))
    assert len({u.id for u in units}) == 3


@pytest.mark.parametrize(
    ("count", "split", "evaluating"),
    [(1, 0.5, 1), (2, 0.01, 1), (2, 0.99, 1), (10, 0.3, 3), (10, 0.96, 9), (8, 0.5, 4)],
)
def test_share_that_evaluates(count, split, evaluating):
    units = units_of(groups_of(count), "prompt", 1, split, 0)
    assert sum(u.role == "E" for u in units) == evaluating


def test_the_seed_moves_the_split():
    roles = {tuple(u.role for u in units_of(groups_of(10), "prompt", 1, 0.5, seed)) for seed in range(6)}
    assert len(roles) > 1


@pytest.mark.parametrize(
    ("said", "scale"),
    [
        ({"scale_rewards": "batch"}, ("batch", "trainer")),
        ({"scale_rewards": True}, ("group", "trainer")),
        ({"scale_rewards": False}, ("none", "trainer")),
        ({"scale_rewards": "else"}, ("group", "default")),
        ({}, ("group", "default")),
    ],
)
def test_reward_scaling(said, scale):
    assert reward_scaling(RunSpec(), said) == scale
    assert reward_scaling(RunSpec(scale_rewards="none"), said) == ("none", "option")


def test_limit_and_loss_type():
    trainer = {"max_completion_length": 64, "loss_type": "dapo"}
    assert completion_limit(RunSpec(), trainer) == (64, "training_args.bin")
    assert completion_limit(RunSpec(max_completion_length=9), trainer) == (9, "option")
    for unusable in (None, True, 0, "64"):
        assert completion_limit(RunSpec(), {"max_completion_length": unusable}) == (None, "longest response")
    assert loss_type(RunSpec(), trainer) == "dapo"
    assert loss_type(RunSpec(loss_type="grpo"), trainer) == "grpo"
    assert loss_type(RunSpec(), {"loss_type": "cispo"}) == loss_type(RunSpec(), {}) == "dr_grpo"
