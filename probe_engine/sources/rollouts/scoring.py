"""Groups with advantages: those that were logged, else computed from the rewards as the trainer would."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence

from probe_engine.estimators.advantages import advantages
from probe_engine.sources.rollouts.grouping import RolloutGroup
from probe_engine.spec import ScaleRewards
from probe_engine.types import Group, Response


def scored(groups: Sequence[RolloutGroup], scale: ScaleRewards, origin: str) -> tuple[tuple[Group, ...], str]:
    """Types' groups in the same order, and where their advantages came from.

    Args:
        groups: each `scored`, with 2 rollouts or more.
    """
    unlogged = [g for g in groups if not g.logged]
    rewards = [[r.reward for r in g.rollouts if r.reward is not None] for g in unlogged]
    computed = iter(advantages(rewards, scale) if rewards else [])
    values = [
        [r.advantage for r in g.rollouts if r.advantage is not None] if g.logged else next(computed)
        for g in groups
    ]
    rule = f"rewards, scale_rewards={scale} ({origin})"
    if not unlogged:
        rule = "logged"
    elif len(unlogged) < len(groups):
        rule = f"logged for {len(groups) - len(unlogged)} of {len(groups)} prompts, else {rule}"
    return tuple(map(_group, _ids(groups), groups, values)), rule


def _group(id_: str, group: RolloutGroup, values: list[float]) -> Group:
    return Group(
        id=id_,
        text=group.rollouts[0].prompt_text,
        tokens=group.prompt,
        responses=tuple(
            Response(
                tokens=r.tokens,
                text=r.text,
                advantage=advantage,
                reward=r.reward,
                terminated=r.terminated,
                logprobs=r.logprobs,
            )
            for r, advantage in zip(group.rollouts, values, strict=True)
        ),
    )


def _ids(groups: Sequence[RolloutGroup]) -> list[str]:
    """Hash of the prompt's tokens; "-2", "-3" for further groups of the same prompt.

    Those are numbered by content, not by place, so that the file's order changes no group's id.
    """
    same: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for index, group in enumerate(groups):
        same[group.prompt].append(index)
    ids = [""] * len(groups)
    for prompt, indices in same.items():
        base = hashlib.sha256(" ".join(map(str, prompt)).encode()).hexdigest()[:16]
        indices.sort(
            key=lambda i: [(r.tokens, repr(r.advantage), repr(r.reward)) for r in groups[i].rollouts]
        )
        for nth, index in enumerate(indices, 1):
            ids[index] = base if nth == 1 else f"{base}-{nth}"
    return ids
