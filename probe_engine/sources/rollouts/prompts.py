"""Prompts to sample from: JSON Lines of `{"prompt": str | [message], …columns}`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from probe_engine.errors import ProbeError
from probe_engine.sources.rollouts import fields, tables
from probe_engine.sources.rollouts.record import BadRow, Prompt, RowError


@dataclass(frozen=True, slots=True)
class PromptRow:
    """One prompt and what the reward function wants to know of it."""

    line: int
    prompt: Prompt
    columns: Mapping[str, Any]


def read_prompts(path: Path) -> tuple[list[PromptRow], list[BadRow]]:
    """Every prompt of the file, and the rows that hold none.

    Raises:
        ProbeError: the file can't be read or has no prompt.
    """
    try:
        lines = list(tables.json_lines(path))
    except OSError as error:
        raise ProbeError(
            f"--prompts: expected a JSON Lines file, but {path} can't be read: {error.strerror}",
            "Check the path and its permissions.",
            code="ROLL013",
        ) from error
    rows, bad = [], []
    for line in lines:
        if isinstance(line, BadRow):
            bad.append(line)
            continue
        number, record = line
        try:
            prompt = fields.prompt(record, "prompt")
            if prompt is None:
                raise RowError('expected a "prompt"')
        except RowError as error:
            bad.append(BadRow(number, str(error)))
        else:
            rows.append(PromptRow(number, prompt, {k: v for k, v in record.items() if k != "prompt"}))
    if not rows:
        first = f"; line {bad[0].line}: {bad[0].reason}" if bad else ", it is empty"
        raise ProbeError(
            f'{path}: expected lines {{"prompt": …}}, got none{first}',
            "Write one JSON object a line, with a prompt and the columns that the reward function takes.",
            code="ROLL013",
        )
    return rows, bad
