"""Rollouts to groups: the responses of one prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from math import isfinite

from probe_engine.sources.rollouts.record import BadRow
from probe_engine.sources.rollouts.tokens import Rollout


@dataclass(frozen=True, slots=True)
class RolloutGroup:
    """The rollouts of one prompt, not yet known to be usable."""

    rollouts: tuple[Rollout, ...]

    @property
    def prompt(self) -> tuple[int, ...]:
        """The prompt's tokens."""
        return self.rollouts[0].prompt

    @property
    def lines(self) -> list[int]:
        """Where it was read."""
        return [r.line for r in self.rollouts]

    @property
    def token_ids(self) -> tuple[int, ...]:
        """All token ids, of the prompt and the responses."""
        return (*self.prompt, *(t for r in self.rollouts for t in r.tokens))

    @property
    def logged(self) -> bool:
        """Does every response have its advantage?"""
        return all(r.advantage is not None for r in self.rollouts)

    @property
    def scored(self) -> bool:
        """Every advantage is there, or every reward, and all that is there is finite."""
        values = [v for r in self.rollouts for v in (r.reward, r.advantage) if v is not None]
        return all(map(isfinite, values)) and (
            self.logged or all(r.reward is not None for r in self.rollouts)
        )


def grouped(
    rollouts: Sequence[Rollout], blocks: bool, num_generations: int | None
) -> tuple[list[RolloutGroup], list[BadRow], list[BadRow]]:
    """Groups, rows that fit none, and evaluation rows.

    Args:
        blocks: groups are consecutive rows (`by_blocks`), else all rows of one key (`by_key`).
    """
    if blocks:
        groups, evaluation = by_blocks(rollouts, num_generations)
        return groups, [], evaluation
    groups, mixed = by_key(rollouts)
    return groups, mixed, []


def by_key(rollouts: Sequence[Rollout]) -> tuple[list[RolloutGroup], list[BadRow]]:
    """Groups by the logged key, else by the prompt's tokens, in the order of their first rows.

    A row whose prompt is not that of its key's first row is left out.
    """
    groups: dict[str | tuple[int, ...], list[Rollout]] = {}
    bad = []
    for rollout in rollouts:
        group = groups.setdefault(rollout.prompt if rollout.group is None else rollout.group, [])
        if group and group[0].prompt != rollout.prompt:
            bad.append(
                BadRow(rollout.line, f"another prompt than line {group[0].line}, which has the same group id")
            )
        else:
            group.append(rollout)
    return [RolloutGroup(tuple(group)) for group in groups.values()], bad


def by_blocks(
    rollouts: Sequence[Rollout], num_generations: int | None
) -> tuple[list[RolloutGroup], list[BadRow]]:
    """Groups that are consecutive rows of one prompt, as TRL logs them; evaluation rows are left out.

    Evaluation on a logged step leaves its rows in the same table: rows without an advantage while
    others have one, and runs whose length num_generations does not divide. A prompt that was drawn
    twice in a row makes a run of several groups.

    Args:
        num_generations: the trainer's G, None where it is not known (then every run is a group).
    """
    logged = any(r.advantage is not None for r in rollouts)
    unlogged = [
        BadRow(r.line, "no advantage while other rows have one: an evaluation row")
        for r in rollouts
        if logged and r.advantage is None
    ]
    training = [r for r in rollouts if not logged or r.advantage is not None]
    runs = [tuple(run) for _, run in groupby(training, key=lambda r: r.prompt)]
    size = num_generations
    if size is None or all(len(run) % size for run in runs):
        # No run fits the trainer's G, so G is not what this table was written with.
        return [RolloutGroup(run) for run in runs], unlogged
    groups, odd = [], []
    for run in runs:
        if len(run) % size:
            odd += [
                BadRow(r.line, f"one of {len(run)} rows of its prompt, expected {size}: an evaluation row")
                for r in run
            ]
        else:
            groups += [RolloutGroup(run[i : i + size]) for i in range(0, len(run), size)]
    return groups, sorted(unlogged + odd, key=lambda row: row.line)


def short_enough(
    groups: Sequence[RolloutGroup], positions: int | None
) -> tuple[list[RolloutGroup], list[BadRow]]:
    """The groups without the rows that are longer than the model's position table, and those rows.

    Args:
        positions: of the model, None where they have no end.
    """
    if positions is None:
        return list(groups), []
    kept, bad = [], []
    for group in groups:
        fitting = tuple(r for r in group.rollouts if _length(r) <= positions)
        if fitting:
            kept.append(RolloutGroup(fitting))
        bad += [
            BadRow(r.line, f"{_length(r)} tokens with its prompt, the model has {positions} positions")
            for r in group.rollouts
            if _length(r) > positions
        ]
    return kept, bad


def _length(rollout: Rollout) -> int:
    return len(rollout.prompt) + len(rollout.tokens)
