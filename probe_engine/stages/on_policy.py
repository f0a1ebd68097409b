"""On policy: the samples against the policy's own distribution, method.md (20)."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from probe_engine.checks import on_policy as checks
from probe_engine.estimators.on_policy import OnPolicyTest, on_policy
from probe_engine.estimators.token_statistics import TokenStatistics
from probe_engine.events import FindingEvent, Part
from probe_engine.model.sharding import from_first_rank
from probe_engine.model.unit_gradients import UnitGradients, UnitObjective
from probe_engine.report import OnPolicy
from probe_engine.stages import Stage
from probe_engine.types import Policy

ENOUGH = 2 * checks.FEWEST_TOKENS
"""Response tokens at which the doctor looks no further."""
MOST_UNITS = 8
"""That the doctor scores to get there."""


def sampled_from_policy(
    units: Sequence[UnitObjective], tokens: Sequence[Sequence[TokenStatistics]], policy_temperature: float
) -> Stage[None]:
    """ROLL007 and ROLL008 from what was scored.

    Args:
        units: not empty.
        tokens: of each unit's responses.
        policy_temperature: by which the logits were divided.
    """
    test = on_policy(TokenStatistics.joined([r for unit in tokens for r in unit]))
    yield Part(on_policy=_reported(test, policy_temperature))
    yield FindingEvent(finding=checks.samples(test, policy_temperature))
    yield FindingEvent(finding=checks.recorded_log_probs(_recorded(units, tokens)))


def small_sample(
    policy: Policy, units: Sequence[UnitObjective], method: UnitGradients, policy_temperature: float
) -> Stage[None]:
    """The doctor's look at its first units: as many as hold enough tokens, and no more than a few."""
    units = from_first_rank(policy.model, units)
    scored: list[tuple[TokenStatistics, ...]] = []
    for unit in units[:MOST_UNITS]:
        scored.append(method.score(unit).tokens)
        if sum(len(r) for responses in scored for r in responses) >= ENOUGH:
            break
    yield from sampled_from_policy(units[: len(scored)], scored, policy_temperature)


def _reported(test: OnPolicyTest, policy_temperature: float) -> OnPolicy:
    return OnPolicy(
        tokens=test.tokens,
        z=test.z,
        temperature=test.fit.temperature * policy_temperature,
        temperature_se=test.fit.se * policy_temperature,
        excluded_mass=test.nucleus.excluded_mass,
        excluded_mass_se=test.nucleus.se,
        top_p=test.nucleus.top_p,
    )


def _recorded(
    units: Sequence[UnitObjective], tokens: Sequence[Sequence[TokenStatistics]]
) -> list[checks.Recorded]:
    found = []
    for unit, statistics in zip(units, tokens, strict=True):
        responses = [r for group in unit.unit.groups for r in group.responses]
        for index, (response, ours) in enumerate(zip(responses, statistics, strict=True)):
            if response.logprobs is not None:
                theirs = torch.tensor(response.logprobs, dtype=torch.float64)
                found.append(checks.Recorded(unit.unit.id, index, theirs, ours.log_probs))
    return found
