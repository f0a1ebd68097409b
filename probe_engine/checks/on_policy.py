"""ROLL007 and ROLL008: are the samples this policy's, by their own statistics and by recorded ones?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from probe_engine.estimators.on_policy import OnPolicyTest
from probe_engine.report import Finding, finding

FEWEST_TOKENS = 200
"""Below, |z| is only large where the difference is, and its normal approximation is rough."""
LARGEST_Z = 4.0
CHANCE = 8.0
"""nats, 4²/2. A sharp policy's surprises are skewed: one rare token makes |z| > 4 by itself. The likelihood
gained by another temperature is no such fluke: chance reaches this one with probability e^−8 or less."""
ERRORS = 4.0
"""Standard errors from which a mass that no sample reached counts as cut off."""

ROUNDING = 0.01
"""Mean absolute difference of log-probabilities, nats, that kernels of one precision make."""
MISMATCH = 0.05
"""From which sampler and trainer are not one policy; low-precision engines stay below."""


def samples(test: OnPolicyTest, policy_temperature: float) -> Finding:
    """ROLL007: the test of method.md (20), with the likeliest reason where it fires."""
    if test.tokens < FEWEST_TOKENS:
        return waiting(test.tokens)
    expected = f"expected surprises of these samples to equal the policy's entropies, |z| ≤ {LARGEST_Z:g}"
    seen = f"z = {test.z:.1f} over {test.tokens} tokens"
    if math.isnan(test.z):
        seen = f"the policy's next token is certain at each of {test.tokens} tokens"
    cut_off = test.nucleus.excluded_mass > ERRORS * test.nucleus.se and test.nucleus.gain > CHANCE
    drifted = abs(test.z) > LARGEST_Z and test.fit.gain > CHANCE
    if not cut_off and not drifted:
        return finding(
            "ROLL007", "ok", f"{seen}: surprise equals entropy", value=_known(test.z), threshold=LARGEST_Z
        )
    return finding(
        "ROLL007",
        "warn",
        f"{expected}; {seen}: the samples are {'likelier' if test.z < 0 else 'less likely'} than the "
        f"policy's own. {_reason(test, cut_off, policy_temperature)}",
        value=_known(test.z),
        threshold=LARGEST_Z,
        evidence={
            "temperature": test.fit.temperature * policy_temperature,
            "temperature_se": _known(test.fit.se * policy_temperature),
            "top_p": test.nucleus.top_p,
            "excluded_mass": test.nucleus.excluded_mass,
            "log_likelihood_gain": {"temperature": test.fit.gain, "top_p": test.nucleus.gain},
        },
    )


def waiting(tokens: int) -> Finding:
    """ROLL007 where too few tokens were looked at."""
    return finding(
        "ROLL007", "skip", f"waits for {FEWEST_TOKENS} response tokens that the policy sampled, has {tokens}"
    )


def _reason(test: OnPolicyTest, cut_off: bool, policy_temperature: float) -> str:
    """Which of the known samplers makes these samples likeliest."""
    T, se = test.fit.temperature * policy_temperature, test.fit.se * policy_temperature
    fitted = f"temperature {T:.2f} ± {se:.2f}"
    if cut_off and test.nucleus.gain > test.fit.gain:
        q, mass = test.nucleus.top_p, test.nucleus.excluded_mass
        if q == 0:
            return "Every token is the likeliest one: greedy decoding"
        return (
            f"None lies beyond the first {q:.1%} of the probability, which leaves out {mass:.1%} of it: "
            f"likely top-p = {q:.2f}, or another cut such as top-k ({fitted} would explain less)"
        )
    if test.z < 0:
        return f"Likely a temperature below 1, or a cut such as top-k or min-p: {fitted} fits best"
    return (
        f"Likely another checkpoint, another chat template or retokenised text; if it is the temperature, "
        f"{fitted} fits best"
    )


@dataclass(frozen=True)
class Recorded:
    """One response's recorded log-probabilities beside the recomputed ones, nats."""

    unit: str
    response: int
    """Its number in the unit, from 0."""
    recorded: Tensor
    """[T]"""
    recomputed: Tensor
    """[T]"""


def recorded_log_probs(responses: Sequence[Recorded]) -> Finding:
    """ROLL008: the behaviour policy's log-probabilities, token by token."""
    if not responses:
        return finding("ROLL008", "skip", "waits for recorded log-probabilities: the rollouts have none")
    difference = torch.cat([r.recorded.double() - r.recomputed.double() for r in responses])
    known = difference[difference.isfinite()]
    mean = float(known.abs().mean()) if len(known) else math.inf
    lost = len(difference) - len(known)
    line = (
        f"expected recorded log-probabilities that differ from the recomputed by {ROUNDING:g} nats at most, "
        f"in the mean; {len(difference)} tokens differ by {mean:.2g}"
    )
    if mean <= ROUNDING and not lost:
        return finding("ROLL008", "ok", line, value=mean, threshold=ROUNDING)
    worst = max(responses, key=lambda r: float(_distance(r).max()))
    place = int(_distance(worst).argmax())
    example = (
        f"{worst.recorded[place]:.3g} recorded, {worst.recomputed[place]:.3g} recomputed for token "
        f"{place + 1} of response {worst.response + 1} of unit {worst.unit}"
    )
    if lost:
        line += f", {lost} more are not finite"
    mismatch = mean > MISMATCH or lost > 0
    return finding(
        "ROLL008",
        "warn" if mismatch else "info",
        f"{line}; for one: {example}. "
        + (
            "Sampler and trainer are not one policy"
            if mismatch
            else "A sampler of lower precision differs by so much"
        ),
        value=mean,
        threshold=MISMATCH if mismatch else ROUNDING,
        evidence={"mean": mean, "signed_mean": float(known.mean()) if len(known) else None, "lost": lost},
    )


def _distance(response: Recorded) -> Tensor:
    """Absolute differences, ∞ where one side is not finite, [T]."""
    return (response.recorded.double() - response.recomputed.double()).abs().nan_to_num(nan=math.inf)


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value
