"""ROLL009, ROLL011, ROLL015: what the sampler was told, where it stopped, and whether it drew anew."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from probe_engine.report import Finding, finding
from probe_engine.sources.rollouts.record import SAMPLING
from probe_engine.sources.rollouts.tokens import Rollout
from probe_engine.types import Group, Scalar

MANY_CUT = 0.2
"""Share of responses that end at the limit from which it is worth knowing."""
MANY_ALIKE = 0.5
"""Share of prompts with one response only, said again and again, from which estimates rest on few."""
_LISTED = 100


def settings(
    rollouts: Sequence[Rollout], trainer: Mapping[str, Scalar], policy_temperature: float, vocabulary: int
) -> Finding:
    """ROLL009: what the rows say, else the trainer's arguments."""
    known = {name: {_number(trainer[name])} for name in SAMPLING if name in trainer}
    for name in SAMPLING:
        if said := {r.sampling[name] for r in rollouts if name in r.sampling}:
            known[name] = {*said}
    if not known:
        return finding(
            "ROLL009",
            "skip",
            "waits for the sampler's settings: neither rows nor the trainer's arguments say them",
        )
    bent = {
        name: sorted(
            v for v in values if v is not None and not _neutral(name, v, policy_temperature, vocabulary)
        )
        for name, values in known.items()
    }
    told = {name: values for name, values in bent.items() if values}
    expected = f"expected samples at temperature {policy_temperature:g} with nothing cut off"
    if not told:
        return finding(
            "ROLL009", "ok", f"temperature {policy_temperature:g}, nothing cut off (from {', '.join(known)})"
        )
    listed = ", ".join(f"{name} = {' and '.join(f'{v:g}' for v in values)}" for name, values in told.items())
    return finding(
        "ROLL009",
        "warn",
        f"{expected}; found {listed}: the samples are not the policy's own",
        value=listed,
        evidence=dict(told),
    )


def _neutral(name: str, value: float, policy_temperature: float, vocabulary: int) -> bool:
    """Does this value leave the policy's distribution as it is?"""
    match name:
        case "temperature":
            return value == policy_temperature
        case "top_k":
            return value <= 0 or value >= vocabulary
        case "min_p":
            return value <= 0
        case _:
            return value == 1


def _number(value: Scalar) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def cut_at_limit(groups: Sequence[Group]) -> Finding:
    """ROLL011: the share of responses that did not end themselves."""
    ended = [r.terminated for g in groups for r in g.responses]
    share = 1 - sum(ended) / len(ended)
    line = f"{len(ended) - sum(ended)} of {len(ended)} responses ({share:.0%}) were cut at the limit"
    if share <= MANY_CUT:
        return finding("ROLL011", "ok", line, value=share, threshold=MANY_CUT)
    return finding(
        "ROLL011",
        "info",
        f"expected most responses to end themselves; {line}: the probed entropy is that of responses of this "
        "length, and rewards may be those of unfinished answers",
        value=share,
        threshold=MANY_CUT,
    )


def distinct(groups: Sequence[Group]) -> Finding:
    """ROLL015: prompts whose responses are all the same: c = 0."""
    alike = [g.id for g in groups if len({r.tokens for r in g.responses}) == 1]
    share = len(alike) / len(groups)
    if not alike:
        return finding("ROLL015", "ok", "every prompt has responses that differ", value=0.0)
    many = share >= MANY_ALIKE
    return finding(
        "ROLL015",
        "warn" if many else "info",
        f"expected responses that differ within a prompt; {len(alike)} of {len(groups)} prompts got the same "
        "response every time, so their c is 0 and they say nothing"
        + (": the estimates rest on the others" if many else " (in a sharp policy this is chance)"),
        value=share,
        threshold=MANY_ALIKE,
        evidence={"units": alike[:_LISTED]},
    )
