"""ROLL009, ROLL011 and ROLL015."""

from __future__ import annotations

from dataclasses import replace

import pytest

from probe_engine.checks import sampler as check
from probe_engine.sources.rollouts.tokens import Rollout
from probe_engine.types import Group, Response

ROLLOUT = Rollout(
    line=1,
    group=None,
    prompt_text="p",
    prompt=(3,),
    text="",
    tokens=(1,),
    reward=None,
    advantage=0.5,
    logprobs=None,
    terminated=True,
    ending="logged",
    from_text=False,
)
NEUTRAL = {"temperature": 1.0, "top_p": 1.0, "top_k": 0, "min_p": None, "repetition_penalty": 1.0}


def settings(trainer, *rows, temperature=1.0):
    rollouts = [replace(ROLLOUT, sampling=row) for row in rows or ({},)]
    return check.settings(rollouts, trainer, temperature, vocabulary=50)


def test_nothing_known_is_nothing_said():
    assert settings({}).status == "skip"


def test_a_sampler_that_leaves_the_policy_alone():
    assert settings(NEUTRAL).status == "ok"
    assert settings(NEUTRAL | {"top_k": -1}).status == "ok", "vLLM's word for none"
    assert settings(NEUTRAL | {"top_k": 50}).status == "ok", "as many as the vocabulary has"


@pytest.mark.parametrize(
    ("name", "value"),
    [("temperature", 0.7), ("top_p", 0.9), ("top_k", 20), ("min_p", 0.05), ("repetition_penalty", 1.1)],
)
def test_each_setting_is_named_with_its_value(name, value):
    found = settings(NEUTRAL | {name: value})
    assert (found.code, found.status) == ("ROLL009", "warn")
    assert f"{name} = {value:g}" in found.message


def test_rows_know_better_than_the_trainer():
    assert settings(NEUTRAL | {"temperature": 0.7}, {"temperature": 1.0}).status == "ok"
    found = settings(NEUTRAL, {"temperature": 1.0}, {"temperature": 0.8}, {"temperature": 0.6})
    assert "temperature = 0.6 and 0.8" in found.message


def test_the_temperature_that_the_probe_divides_by_is_the_policys():
    assert settings(NEUTRAL | {"temperature": 0.7}, temperature=0.7).status == "ok"
    assert settings(NEUTRAL, temperature=0.7).status == "warn"


def group(*responses, ended=True):
    return Group("g", "", (1,), tuple(Response(tuple(r), "", 0.5, terminated=ended) for r in responses))


@pytest.mark.parametrize(("cut", "status"), [(0, "ok"), (2, "ok"), (3, "info"), (10, "info")])
def test_truncation(cut, status):
    found = check.cut_at_limit([group((1,), (2,), ended=n >= cut) for n in range(10)])
    assert (found.code, found.status, found.value) == ("ROLL011", status, pytest.approx(cut / 10))


@pytest.mark.parametrize(
    ("alike", "status"), [(0, "ok"), (1, "info"), (4, "info"), (5, "warn"), (10, "warn")]
)
def test_responses_that_are_one_response(alike, status):
    found = check.distinct([group((1, 2), (1, 2) if n < alike else (1, 3)) for n in range(10)])
    assert (found.code, found.status) == ("ROLL015", status)
