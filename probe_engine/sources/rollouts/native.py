"""The native format: one response a row (interface.md, "Rollouts, native format")."""

from __future__ import annotations

from probe_engine.sources.rollouts import fields
from probe_engine.sources.rollouts.fields import Record
from probe_engine.sources.rollouts.record import RawRollout

NAME = "native"


def parse(record: Record, line: int) -> RawRollout:
    """One row.

    Raises:
        RowError: a field is missing or has the wrong type.
    """
    return RawRollout(
        line=line,
        prompt=fields.prompt(record, "prompt"),
        prompt_tokens=fields.ids(record, "prompt_tokens"),
        response=fields.text(record, "response"),
        response_tokens=fields.ids(record, "response_tokens"),
        reward=fields.number(record, "reward"),
        advantage=fields.number(record, "advantage"),
        logprobs=fields.numbers(record, "logprobs"),
        terminated=fields.flag(record, "terminated"),
        step=fields.step(record),
        group=fields.key(record, "prompt_id"),
        sampling=fields.sampling(record),
    )
