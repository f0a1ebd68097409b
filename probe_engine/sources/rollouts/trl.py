"""TRL's completions table (`log_completions=True`): one row a completion, groups in consecutive blocks.

Columns: step, prompt, completion, one per reward function, then what reward functions logged with
`log_extra`, then advantage. Prompt and completion are strings or message lists; the eos is stripped.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import takewhile
from typing import Any

from probe_engine.sources.rollouts import fields
from probe_engine.sources.rollouts.fields import Record
from probe_engine.sources.rollouts.record import RawRollout, RowError

NAME = "TRL completions"


def recognises(record: Record) -> bool:
    """`prompt` and `completion`."""
    return {"prompt", "completion"} <= record.keys()


def reward_columns(records: Sequence[Record]) -> tuple[str, ...]:
    """The reward functions' columns: those after `completion`, as long as they hold floats or nothing.

    TRL writes rewards as floats and puts logged extras behind them, so the first other column ends them.
    """
    if not records:
        return ()
    names = list(records[0])
    after = names[names.index("completion") + 1 :]
    return tuple(
        takewhile(
            lambda name: (
                name != "advantage"
                and all(value is None or isinstance(value, float) for value in (r[name] for r in records))
            ),
            after,
        )
    )


def parse(record: Record, line: int, rewards: Sequence[str]) -> RawRollout:
    """One row. The reward is the sum over reward functions; those that returned None are left out of it.

    An empty completion is a response of eos alone, which decoding removed.

    Raises:
        RowError: a field has the wrong type, or the completion is not one assistant message.
    """
    given = [value for value in (record.get(name) for name in rewards) if value is not None]
    response = _assistant_text(_decoded(record.get("completion")))
    return RawRollout(
        line=line,
        prompt=fields.prompt({"prompt": _decoded(record.get("prompt"))}, "prompt"),
        response=response,
        reward=sum(given) if given else None,
        advantage=fields.number(record, "advantage"),
        terminated=True if response == "" else None,
        step=fields.step(record),
    )


def _decoded(value: Any) -> Any:
    # Some writers store message lists as JSON text, because a table's columns have one type.
    if isinstance(value, str) and value.startswith("[{"):
        try:
            messages = json.loads(value)
        except (ValueError, RecursionError):
            return value
        if all(isinstance(m, dict) and "role" in m for m in messages):
            return messages
    return value


def _assistant_text(value: Any) -> str | None:
    if not isinstance(value, list):
        return fields.text({"completion": value}, "completion")
    said = fields.messages(value, "completion")
    if len(said) != 1 or said[0]["role"] != "assistant" or said[0].get("tool_calls"):
        raise RowError("completion: expected one assistant message without tool calls; log token ids instead")
    return fields.text(said[0], "content")
