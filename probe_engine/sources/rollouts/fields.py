"""Typed access to the fields of a row; a wrong type is a RowError that names the field."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from probe_engine.sources.rollouts.record import SAMPLING, Message, Prompt, RowError

Record = Mapping[str, Any]

_LARGEST_ID = 2**31 - 1
_LARGEST_STEP = 2**53


def text(record: Record, key: str) -> str | None:
    """A string that can be written as UTF-8 (JSON admits lone surrogates, tokenizers don't)."""
    value = record.get(key)
    if value is None:
        return None
    if not isinstance(value, str):
        raise _wrong(key, "a string", value)
    return _encodable(value, key)


def prompt(record: Record, key: str) -> Prompt | None:
    """A string, or chat messages."""
    value = record.get(key)
    if isinstance(value, list | tuple):
        return messages(value, key)
    if value is None or isinstance(value, str):
        return text(record, key)
    raise _wrong(key, "a string or a list of messages", value)


def messages(value: Sequence[Any], key: str) -> tuple[Message, ...]:
    """Chat messages; fields that are null are left out, as a table's columns are shared by all messages."""
    if not value:
        raise RowError(f"{key}: expected messages, got an empty list")
    for message in value:
        if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
            raise RowError(f'{key}: expected messages {{"role": …, "content": …}}, got {_short(message)}')
        _encodable(json.dumps(message, ensure_ascii=False, default=str), key)
    return tuple({k: v for k, v in m.items() if v is not None} for m in value)


def ids(record: Record, key: str) -> tuple[int, ...] | None:
    """Token ids. Whether the vocabulary has them is another question."""
    value = record.get(key)
    if value is None:
        return None
    if not isinstance(value, list | tuple):
        raise _wrong(key, "a list of token ids", value)
    for token in value:
        if not isinstance(token, int) or isinstance(token, bool) or abs(token) > _LARGEST_ID:
            raise RowError(f"{key}: expected 32-bit token ids, got {_short(token)}")
    return tuple(value)


def number(record: Record, key: str) -> float | None:
    """A float, perhaps not finite. Verifiers that answer true or false count as 1 or 0."""
    value = record.get(key)
    return None if value is None else _float(value, key)


def numbers(record: Record, key: str) -> tuple[float, ...] | None:
    """A list of floats."""
    value = record.get(key)
    if value is None:
        return None
    if not isinstance(value, list | tuple):
        raise _wrong(key, "a list of numbers", value)
    return tuple(_float(v, key) for v in value)


def sampling(record: Record) -> dict[str, float]:
    """The sampler's settings that the row has."""
    said = {name: number(record, name) for name in SAMPLING}
    return {name: value for name, value in said.items() if value is not None}


def flag(record: Record, key: str) -> bool | None:
    """A boolean."""
    value = record.get(key)
    if value is not None and not isinstance(value, bool):
        raise _wrong(key, "true or false", value)
    return value


def step(record: Record, key: str = "step") -> int | None:
    """A step count."""
    value = record.get(key)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < _LARGEST_STEP:
        raise _wrong(key, "a step number", value)
    return value


def key(record: Record, name: str) -> str | None:
    """A group's key: a string or an integer."""
    value = record.get(name)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return text(record, name)


def _float(value: Any, key: str) -> float:
    if not isinstance(value, int | float):
        raise _wrong(key, "a number", value)
    try:
        return float(value)
    except OverflowError:
        return float("inf") if value > 0 else float("-inf")


def _encodable(value: str, key: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise RowError(f"{key}: not valid Unicode: a lone surrogate at character {error.start}") from error
    return value


def _wrong(key: str, expected: str, value: Any) -> RowError:
    return RowError(f"{key}: expected {expected}, got {type(value).__name__} {_short(value)}")


def _short(value: Any, width: int = 40) -> str:
    # ascii() of a huge integer raises, and of a long list costs more than the message is worth.
    if isinstance(value, int) and abs(value) >= 10**width:
        return "a huge integer"
    if isinstance(value, list | tuple | Mapping):
        return f"of {len(value)} entries"
    shown = ascii(value)
    return shown if len(shown) <= width else shown[: width - 1] + "…"
