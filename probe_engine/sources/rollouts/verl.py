"""verl's `rollout_data_dir/{step}.jsonl`: decoded prompt and response, score, and `uid` in newer versions."""

from __future__ import annotations

from probe_engine.sources.rollouts import fields
from probe_engine.sources.rollouts.fields import Record
from probe_engine.sources.rollouts.record import RawRollout

NAME = "verl"
NOTE = "verl decodes prompts without special tokens, so a chat prompt's tokens are not exactly the trainer's"


def recognises(record: Record) -> bool:
    """`input` and `output`."""
    return {"input", "output"} <= record.keys()


def parse(record: Record, line: int) -> RawRollout:
    """One row. An empty output is a response of eos alone, which decoding removed.

    Raises:
        RowError: a field is missing or has the wrong type.
    """
    response = fields.text(record, "output")
    return RawRollout(
        line=line,
        prompt=fields.text(record, "input"),
        response=response,
        reward=fields.number(record, "score"),
        terminated=True if response == "" else None,
        step=fields.step(record),
        group=fields.key(record, "uid"),
        sampling=fields.sampling(record),
    )
