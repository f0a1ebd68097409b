"""ROLL002, ROLL003, ROLL016: do advantages say anything, and are they made of the rewards beside them?"""

from __future__ import annotations

from collections.abc import Sequence

from probe_engine.estimators.advantages import matching_normalisation
from probe_engine.report import Finding, finding
from probe_engine.sources.rollouts.grouping import RolloutGroup
from probe_engine.types import Group

_LISTED = 100
"""Units that evidence lists at most; the message always has their number."""


def normalised(groups: Sequence[RolloutGroup]) -> Finding:
    """ROLL016: the logged advantages, computed anew from the logged rewards.

    Args:
        groups: each `scored`, with 2 rollouts or more.
    """
    both = [g for g in groups if g.logged and all(r.reward is not None for r in g.rollouts)]
    if not both:
        absent = (
            "rewards" if any(g.logged for g in groups) else "advantages: the probe makes them of the rewards"
        )
        return finding("ROLL016", "skip", f"waits for logged {absent}")
    rewards = [[r.reward for r in g.rollouts if r.reward is not None] for g in both]
    advantages = [[r.advantage for r in g.rollouts if r.advantage is not None] for g in both]
    rule = matching_normalisation(rewards, advantages)
    if rule is not None:
        return finding("ROLL016", "ok", f"each advantage is the reward's {rule}", value=rule)
    example = ", ".join(
        f"{a:.3g} for reward {r:.3g}" for a, r in zip(advantages[0][:4], rewards[0][:4], strict=True)
    )
    return finding(
        "ROLL016",
        "warn",
        f"expected advantages that some known rule makes of the rewards; those of {len(both)} prompts follow "
        f"none (line {both[0].lines[0]}: {example}, …): they were made of other rewards than those logged",
        evidence={"advantages": advantages[0], "rewards": rewards[0]},
    )


def zero_advantages(groups: Sequence[Group]) -> tuple[Finding, Finding]:
    """ROLL002 (some groups) and ROLL003 (all of them): advantages that are all 0."""
    flat = [g.id for g in groups if all(r.advantage == 0 for r in g.responses)]
    all_zero = len(flat) == len(groups)
    some = finding(
        "ROLL002",
        "info" if flat else "ok",
        f"{len(flat)} of {len(groups)} prompts have advantages that are all 0: they give no policy gradient"
        if flat
        else "every prompt has advantages that are not 0",
        value=float(len(flat)),
        evidence={"units": flat[:_LISTED]} if flat else {},
    )
    whole = finding(
        "ROLL003",
        "fail" if all_zero else "ok",
        f"expected advantages that differ from 0; all of {len(groups)} prompts have only 0, so Y = 0 and "
        "δH₁ is 0 by construction"
        if all_zero
        else f"{len(groups) - len(flat)} of {len(groups)} prompts give a policy gradient",
        value=float(len(groups) - len(flat)),
    )
    return some, whole
