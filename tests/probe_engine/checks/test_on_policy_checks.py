"""ROLL007 and ROLL008: when they fire, and what they name."""

from __future__ import annotations

import math

import pytest
import torch

from probe_engine.checks.on_policy import Recorded, recorded_log_probs, samples
from probe_engine.estimators.on_policy import NucleusFit, OnPolicyTest, TemperatureFit

UNCUT = NucleusFit(0.999, 0.0, 0.001, 0.0)


def outcome(tokens=1000, z=0.0, temperature=1.0, gain=0.0, nucleus=UNCUT):
    return OnPolicyTest(tokens, z, TemperatureFit(temperature, 0.02, gain), nucleus)


def test_too_few_tokens_say_nothing():
    found = samples(outcome(tokens=199, z=9.0, gain=40.0), 1.0)
    assert (found.code, found.status) == ("ROLL007", "skip")
    assert "waits for 200" in found.message


@pytest.mark.parametrize(
    ("seen", "status", "says"),
    [
        (outcome(z=3.9, gain=7.6), "ok", "z = 3.9"),
        (outcome(z=9.0, gain=3.0), "ok", "z = 9.0"),
        (outcome(z=math.nan), "ok", "is certain"),
        (outcome(z=4.1, temperature=1.1, gain=8.4), "warn", "another checkpoint"),
        (outcome(z=-9.0, temperature=0.7, gain=40.0), "warn", "temperature 0.70 ± 0.02 fits best"),
        (
            outcome(z=-8.0, temperature=0.8, gain=30.0, nucleus=NucleusFit(0.898, 0.08, 0.009, 90)),
            "warn",
            "top-p = 0.90",
        ),
        (
            outcome(z=-3.0, temperature=0.9, gain=4.5, nucleus=NucleusFit(0.95, 0.04, 0.006, 60)),
            "warn",
            "top-p = 0.95",
        ),
        (
            outcome(z=-30.0, temperature=1 / 3, gain=90.0, nucleus=NucleusFit(0.0, 0.5, 0.0, 400)),
            "warn",
            "greedy",
        ),
    ],
)
def test_it_fires_on_what_chance_does_not_do_and_names_the_likeliest_reason(seen, status, says):
    found = samples(seen, 1.0)
    assert found.status == status
    assert says in found.message


def test_temperatures_are_absolute():
    found = samples(outcome(z=9.0, temperature=1.5, gain=40.0), 0.8)
    assert "temperature 1.20 ± 0.02" in found.message
    assert found.evidence["temperature"] == pytest.approx(1.2)


def recorded(difference, tokens=50):
    ours = torch.linspace(-3, -0.1, tokens, dtype=torch.float64)
    theirs = ours + difference
    return Recorded("unit-a", 2, theirs, ours)


@pytest.mark.parametrize(
    ("difference", "status"), [(0.0, "ok"), (0.009, "ok"), (-0.02, "info"), (0.06, "warn"), (-2.0, "warn")]
)
def test_recorded_log_probs(difference, status):
    found = recorded_log_probs([recorded(0.0, tokens=1), recorded(difference)])
    assert (found.code, found.status) == ("ROLL008", status)
    if status != "ok":
        assert "response 3 of unit unit-a" in found.message


def test_none_recorded_and_none_finite():
    assert recorded_log_probs([]).status == "skip"
    lost = recorded(torch.tensor([math.nan] + [0.0] * 49))
    found = recorded_log_probs([lost])
    assert found.status == "warn"
    assert "1 more are not finite" in found.message
    assert "token 1 of response 3" in found.message
