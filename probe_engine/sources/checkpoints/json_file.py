"""JSON objects from files that may be anything."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

from probe_engine.sources.checkpoints.names import writable

_NOT_FINITE = {"Infinity": math.inf, "-Infinity": -math.inf, "NaN": math.nan}


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        ValueError: the file can't be read or holds something else; the message says what, beginning
            with the file's path.
    """
    if not os.path.isfile(path):
        raise ValueError(f"{path}: expected a JSON file, found {'a folder' if path.is_dir() else 'none'}")
    try:
        return parse_object(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: {writable(str(error))}") from error


def parse_object(data: bytes) -> dict[str, Any]:
    """The JSON object in some bytes.

    Raises:
        ValueError: they are no UTF-8, no JSON, no object, or hold text that is no Unicode.
    """
    text = data.decode("utf-8")
    try:
        value = json.loads(text, object_hook=_plain)
    except RecursionError as error:
        raise ValueError("expected a JSON object, found brackets nested without end") from error
    if not isinstance(value, dict):
        found = type(value).__name__
        raise ValueError(f"expected a JSON object, found {found}")  # noqa: TRY004 - the content is wrong
    if "\\ud" in text.lower():
        # An escaped lone surrogate parses, and would fail later, when a message quotes it.
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    return value


def _plain(parsed: dict[str, Any]) -> Any:
    """transformers writes numbers that JSON lacks as `{"__float__": "Infinity"}`: see Mamba-2."""
    if parsed.keys() == {"__float__"} and isinstance(parsed["__float__"], str):
        return _NOT_FINITE.get(parsed["__float__"], parsed)
    return parsed
