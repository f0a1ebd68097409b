"""Rollouts: from a file, from prompts sampled here, or from a live object, to a checked batch of units."""

from __future__ import annotations

from typing import Literal

from probe_engine.checks import advantages, sampler
from probe_engine.checks import rollouts as check
from probe_engine.errors import ProbeError
from probe_engine.events import FindingEvent, Part
from probe_engine.model.sampling import embedding_rows, eos_ids, position_limit
from probe_engine.report import Finding, RolloutsInfo
from probe_engine.sources.rollouts.grouping import grouped, short_enough
from probe_engine.sources.rollouts.live import live_source
from probe_engine.sources.rollouts.locate import located
from probe_engine.sources.rollouts.read import read
from probe_engine.sources.rollouts.record import RolloutSource
from probe_engine.sources.rollouts.scoring import scored
from probe_engine.sources.rollouts.settings import (
    completion_limit,
    loss_type,
    num_generations,
    reward_scaling,
)
from probe_engine.sources.rollouts.steps import at_one_step
from probe_engine.sources.rollouts.tokens import tokenised
from probe_engine.sources.rollouts.units import units_of
from probe_engine.spec import RunSpec
from probe_engine.stages import Stage
from probe_engine.stages.sample import sampled
from probe_engine.types import Batch, Policy


def rollouts(spec: RunSpec, policy: Policy) -> Stage[Batch]:
    """The batch of a run: sampled from `--prompts`, else read from `--rollouts` or beside the checkpoint.

    Raises:
        ProbeError: nothing found, nothing readable, or no group that can be used.
    """
    if spec.prompts is not None:
        source = yield from sampled(spec, policy)
        return (yield from _checked(source, spec, policy))
    found = located(spec, policy.step)
    source = at_one_step(read(found.path), policy.step, found.step)
    yield FindingEvent(finding=check.neighbouring_step(source.step, policy.step))
    return (yield from _checked(source, spec, policy))


def live_rollouts(spec: RunSpec, policy: Policy, batch: object) -> Stage[Batch]:
    """The batch of a probe on live objects.

    Args:
        batch: a `Batch`, taken as it is; a list of native-format rows; or trl's tensors (`live_source`).

    Raises:
        ProbeError: it is none of these, or no group of it can be used.
    """
    if isinstance(batch, Batch):
        source = RolloutSource(path="live batch", format="Batch", rows=())
        return (yield from _described(batch, source, "ids", "logged"))
    return (yield from _checked(at_one_step(live_source(batch), None), spec, policy))


def _checked(source: RolloutSource, spec: RunSpec, policy: Policy) -> Stage[Batch]:
    limit, l_max_origin = completion_limit(spec, policy.trainer)
    rows, refused = tokenised(source.rows, policy.tokenizer, eos_ids(policy), limit)
    groups, mixed, evaluation = grouped(rows, source.blocks, num_generations(policy.trainer))
    groups, long = short_enough(groups, position_limit(policy))
    bad = (*source.bad, *refused, *mixed, *long)
    left = len(rows) - len(mixed) - len(long) - len(evaluation)
    readable = check.malformed(bad, left + len(evaluation), source.notes)
    evaluated = check.evaluation_rows(evaluation, left)
    if not groups:
        raise _stopped(evaluated if evaluation and not bad else readable)
    for found in (readable, evaluated):
        yield FindingEvent(finding=found)
    vocabulary = embedding_rows(policy)
    for sieve in (check.large_enough, lambda g: check.in_vocabulary(g, vocabulary), check.finite):
        groups, found = sieve(groups)
        if not groups:
            raise _stopped(found)
        yield FindingEvent(finding=found)
    used = [r for g in groups for r in g.rollouts]
    for found in (
        check.retokenised(used),
        check.endings(used),
        sampler.settings(used, policy.trainer, spec.policy_temperature, vocabulary),
        advantages.normalised(groups),
    ):
        yield FindingEvent(finding=found)
    usable, advantages_from = scored(groups, *reward_scaling(spec, policy.trainer))
    usable = usable[: spec.max_prompts]
    batch = Batch(
        units=units_of(usable, spec.units, spec.block_size, spec.split, spec.seed),
        max_completion_length=limit or max(len(r.tokens) for g in usable for r in g.responses),
        l_max_origin=l_max_origin,
        weighting=spec.weighting,
        loss_type=loss_type(spec, policy.trainer),
    )
    tokens_from: Literal["ids", "text"] = "text" if any(r.from_text for r in used) else "ids"
    return (yield from _described(batch, source, tokens_from, advantages_from))


def _described(
    batch: Batch, source: RolloutSource, tokens_from: Literal["ids", "text"], advantages_from: str
) -> Stage[Batch]:
    for found in (
        sampler.cut_at_limit(batch.groups),
        sampler.distinct(batch.groups),
        *advantages.zero_advantages(batch.groups),
        check.enough_units(batch),
    ):
        yield FindingEvent(finding=found)
    responses = [r for g in batch.groups for r in g.responses]
    yield Part(
        rollouts=RolloutsInfo(
            path=source.path,
            format=source.format,
            prompts=len(batch.groups),
            responses=len(responses),
            tokens=sum(len(r.tokens) for r in responses),
            tokens_from=tokens_from,
            max_completion_length=batch.max_completion_length,
            max_completion_length_origin=batch.l_max_origin,
            loss_type=batch.loss_type,
            advantages_from=advantages_from,
            step=source.step,
            sampled_here=source.sampled_here,
        )
    )
    return batch


def _stopped(found: Finding) -> ProbeError:
    """The error for a check that leaves no group to go on with."""
    return ProbeError(
        f"no rollouts are left: {found.message}",
        found.remedy.text,
        code=found.code,
        commands=tuple(found.remedy.commands),
        evidence=found.evidence,
    )
