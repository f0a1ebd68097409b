"""Resample: fresh responses to the same prompts, from the policy as it is after the step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from probe_engine.checks import on_policy as checks
from probe_engine.errors import ProbeError
from probe_engine.estimators.change import Change
from probe_engine.estimators.on_policy import on_policy
from probe_engine.estimators.resample import resample
from probe_engine.estimators.token_statistics import TokenStatistics
from probe_engine.events import Progress
from probe_engine.model.sampling import can_generate, eos_ids, position_limit, sampled_responses
from probe_engine.model.unit_gradients import UnitGradients, objectives
from probe_engine.spec import RunSpec
from probe_engine.stages import Stage
from probe_engine.stages.samples import Evaluated
from probe_engine.types import Batch, Policy, Response, Unit


def obstacle(
    policy: Policy, batch: Batch, tokens: Sequence[Sequence[TokenStatistics]], policy_temperature: float
) -> str:
    """Why fresh responses can't be compared with the batch's own; empty where they can.

    Args:
        tokens: of each unit's responses, before the step.
        policy_temperature: by which the logits were divided.
    """
    if not can_generate(policy):
        return f"{type(policy.model).__name__} has no generate()"
    try:
        eos = eos_ids(policy)
    except ProbeError as error:
        return error.message
    if any(r.terminated and r.tokens[-1] not in eos for g in batch.groups for r in g.responses):
        return "responses ended themselves by other tokens than the model's eos"
    limit, longest = position_limit(policy), max(len(g.tokens) for g in batch.groups)
    if limit is not None and longest + batch.max_completion_length > limit:
        return f"the model has {limit} positions, too few for {batch.max_completion_length} more tokens"
    test = on_policy(TokenStatistics.joined([r for unit in tokens for r in unit]))
    if checks.samples(test, policy_temperature).status == "warn":
        return "the batch is not this policy's (ROLL007), so it does not tell the entropy before the step"
    return ""


def resampled(
    policy: Policy, batch: Batch, method: UnitGradients, evaluated: Evaluated, spec: RunSpec
) -> Stage[Change]:
    """ΔĤ from as many fresh responses of each prompt as there were, sampled from the policy as it is now.

    Args:
        policy: after the step.
        batch: whose λ and L_max hold for the fresh responses too.
        method: scores.
        evaluated: the units of the pairing, as they were before the step.
        spec: how to sample.
    """
    prompts = [s.prompt for unit in evaluated.units for s in unit.sequences]
    responses: list[tuple[int, ...]] = []
    for chunk in sampled_responses(
        policy,
        prompts,
        max_new_tokens=batch.max_completion_length,
        seed=spec.seed,
        micro_batch=spec.micro_batch,
        temperature=spec.policy_temperature,
    ):
        responses += chunk
        yield Progress(stage="realize", done=len(responses), total=len(prompts), unit="responses")
    taken = iter(responses)
    units = objectives(replace(batch, units=tuple(_with_responses(u.unit, taken) for u in evaluated.units)))
    scores = [(scored.S, scored.tokens) for scored in method.scores(units)]
    fresh = Evaluated(units, scores, batch.constant_lambda)
    return resample(evaluated.samples(evaluated.scores), evaluated.entropies, fresh.entropies)


def _with_responses(unit: Unit, responses: Iterator[tuple[int, ...]]) -> Unit:
    groups = tuple(
        replace(g, responses=tuple(Response(next(responses), "", advantage=0.0) for _ in g.responses))
        for g in unit.groups
    )
    return replace(unit, groups=groups)
