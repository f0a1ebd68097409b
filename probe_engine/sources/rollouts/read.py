"""Reads a rollouts file of any format that is known, told apart by content."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from probe_engine.errors import ProbeError
from probe_engine.sources.rollouts import native, open_instruct, tables, trl, verl
from probe_engine.sources.rollouts.fields import Record
from probe_engine.sources.rollouts.record import BadRow, RawRollout, RolloutSource, RowError
from probe_engine.sources.rollouts.tables import Numbered


def read(path: Path) -> RolloutSource:
    """Every row of a file.

    Raises:
        ProbeError: the file can't be opened, is empty, or no row of it is a record.
    """
    with _readable(path):
        parquet = tables.is_parquet(path)
        rows = list(tables.parquet_rows(path) if parquet else tables.json_lines(path))
    if not rows:
        raise _empty(path)
    return parsed(rows, str(path), parquet=parquet)


def read_head(path: Path, count: int = 64) -> tuple[RolloutSource, int]:
    """The first rows of a file, and about how many it holds: cheap, whatever its size.

    Raises:
        ProbeError: as `read`.
    """
    with _readable(path):
        parquet = tables.is_parquet(path)
        rows, total = (tables.parquet_head if parquet else tables.json_lines_head)(path, count)
    if not rows:
        raise _empty(path)
    return parsed(rows, str(path), parquet=parquet), total


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ProbeError(
            f"{path}: expected a rollouts file, but it can't be read: {error.strerror}",
            "Check the path and its permissions.",
            code="ROLL013",
        ) from error


def _empty(path: Path) -> ProbeError:
    return ProbeError(
        f"{path}: expected rollouts, one a line, got an empty file",
        "Was the run stopped before it logged? Point --rollouts at another file.",
        code="ROLL013",
        commands=("probe-tui CHECKPOINT --rollouts PATH",),
    )


def parsed(rows: Iterable[Numbered | BadRow], path: str, *, parquet: bool = False) -> RolloutSource:
    """Recognises the format by the first record that has a format's keys, and parses every row by it."""
    records = [row for row in rows if not isinstance(row, BadRow)]
    bad = [row for row in rows if isinstance(row, BadRow)]
    format_, parse, notes = _format([record for _, record in records], parquet)
    rollouts: list[RawRollout] = []
    for line, record in records:
        try:
            rollouts.append(parse(record, line))
        except RowError as error:
            bad.append(BadRow(line, str(error)))
    return RolloutSource(
        path=path,
        format=f"{format_} ({'parquet' if parquet else 'JSON Lines'})",
        rows=tuple(rollouts),
        bad=tuple(sorted(bad, key=lambda row: row.line)),
        blocks=format_ == trl.NAME,
        notes=notes,
    )


def _format(
    records: Sequence[Record], parquet: bool
) -> tuple[str, Callable[[Record, int], RawRollout], tuple[str, ...]]:
    # Only TRL's tables have a column order, by which reward functions are told from logged extras.
    if parquet and records and trl.recognises(records[0]):
        rewards = trl.reward_columns(records)
        notes = (f"reward = {' + '.join(rewards)}, each with weight 1",) if rewards else ()
        return trl.NAME, partial(trl.parse, rewards=rewards), notes
    for record in records:
        if open_instruct.recognises(record):
            return open_instruct.NAME, open_instruct.parse, ()
        if verl.recognises(record):
            return verl.NAME, verl.parse, (verl.NOTE,)
        if "response" in record or "response_tokens" in record:
            break
    return native.NAME, native.parse, ()
