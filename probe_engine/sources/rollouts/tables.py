"""Files to numbered records: JSON Lines and parquet. A row that can't be decoded is named, no more."""

from __future__ import annotations

import codecs
import json
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from probe_engine.errors import ProbeError
from probe_engine.sources.rollouts.record import BadRow

PARQUET_MAGIC = b"PAR1"
Numbered = tuple[int, dict[str, Any]]


def is_parquet(path: Path) -> bool:
    """By content, whatever the name."""
    with path.open("rb") as file:
        return file.read(len(PARQUET_MAGIC)) == PARQUET_MAGIC


def json_lines(path: Path) -> Iterator[Numbered | BadRow]:
    """Records of a JSON Lines file, numbered by line from 1; blank lines are no rows."""
    with path.open("rb") as file:
        yield from _objects(file)


def parquet_rows(path: Path) -> Iterator[Numbered | BadRow]:
    """Records of a parquet table, numbered by row from 1.

    Raises:
        ProbeError: the file is cut or corrupt.
    """
    with _parquet(path):
        table = pq.read_table(path)
    yield from _records(table)


def json_lines_head(path: Path, count: int) -> tuple[list[Numbered | BadRow], int]:
    """The first records, and about how many there are, by their length in bytes."""
    with path.open("rb") as file:
        lines = list(islice(_objects(file), count))
        read, size = file.tell(), os.fstat(file.fileno()).st_size
    return lines, len(lines) * size // read if read else 0


def parquet_head(path: Path, count: int) -> tuple[list[Numbered | BadRow], int]:
    """The first records, and how many there are; the rest of the table is not read.

    Raises:
        ProbeError: the file is cut or corrupt.
    """
    with _parquet(path), pq.ParquetFile(path) as file:
        total: int = file.metadata.num_rows
        batches = [*islice(file.iter_batches(batch_size=count), 1)]
        table = pa.Table.from_batches(batches, schema=file.schema_arrow)
    return list(_records(table)), total


@contextmanager
def _parquet(path: Path) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError, ValueError) as error:
        raise ProbeError(
            f"{path}: expected a parquet file, got one that can't be read: {_one_line(error)}",
            "Copy the file again.",
            code="ROLL013",
        ) from error


def _records(table: pa.Table) -> Iterator[Numbered | BadRow]:
    for row in range(table.num_rows):
        try:
            yield row + 1, {name: table[name][row].as_py() for name in table.column_names}
        except (pa.ArrowException, ValueError, KeyError, OverflowError) as error:
            yield BadRow(row + 1, _one_line(error))


def _objects(file: BinaryIO) -> Iterator[Numbered | BadRow]:
    for number, line in enumerate(file, 1):
        content = line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
        if content.strip():
            yield _json_object(content, number)


def _json_object(line: bytes, number: int) -> Numbered | BadRow:
    try:
        record = json.loads(line.decode(), object_pairs_hook=_without_repetition)
    except UnicodeDecodeError as error:
        return BadRow(number, f"not UTF-8: byte 0x{line[error.start]:02x} at position {error.start}")
    except RecursionError:
        return BadRow(number, "not valid JSON: nested too deeply")
    except ValueError as error:
        return BadRow(number, f"not valid JSON: {_one_line(error)}")
    if not isinstance(record, dict):
        return BadRow(number, f"expected a JSON object, got {type(record).__name__}")
    return number, record


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) < len(pairs):
        key, times = Counter(key for key, _ in pairs).most_common(1)[0]
        raise ValueError(f"the key {key!r} stands there {times} times")
    return record


def _one_line(error: Exception, width: int = 200) -> str:
    return ascii(str(error).partition("\n")[0])[1:-1][:width]
