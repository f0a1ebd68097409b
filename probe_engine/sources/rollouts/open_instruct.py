"""open-instruct's traces (`save_traces`): token ids, reward, advantage and finish reason a row."""

from __future__ import annotations

from probe_engine.sources.rollouts import fields
from probe_engine.sources.rollouts.fields import Record
from probe_engine.sources.rollouts.record import RawRollout, RowError

NAME = "open-instruct"


def recognises(record: Record) -> bool:
    """Token ids and a finish reason."""
    return {"prompt_tokens", "response_tokens", "finish_reason"} <= record.keys()


def parse(record: Record, line: int) -> RawRollout:
    """One row. `prompt_idx` tells groups apart within a step.

    Raises:
        RowError: a field is missing or has the wrong type, or the response holds tool output, whose
            tokens the policy did not sample (the mask that says which is not logged).
    """
    info = record.get("request_info")
    if isinstance(info, dict) and info.get("num_calls"):
        raise RowError("the response holds tool output, and no mask says which tokens were sampled")
    reason = fields.text(record, "finish_reason")
    prompt = fields.key(record, "prompt_idx")
    step = fields.step(record)
    return RawRollout(
        line=line,
        prompt_tokens=fields.ids(record, "prompt_tokens"),
        response_tokens=fields.ids(record, "response_tokens"),
        reward=fields.number(record, "reward"),
        advantage=fields.number(record, "advantage"),
        logprobs=fields.numbers(record, "logprobs"),
        terminated=None if reason is None else reason == "stop",
        step=step,
        group=None if prompt is None else f"{step}/{prompt}",
        sampling=fields.sampling(record),
    )
