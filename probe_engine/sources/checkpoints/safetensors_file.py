"""safetensors files: checked by header and size before anything is loaded."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from probe_engine.errors import ProbeError
from probe_engine.sources.checkpoints.json_file import parse_object
from probe_engine.sources.checkpoints.library import library_call

MAX_HEADER = 100_000_000
"""Bytes; the format's own limit."""

_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8,
    "I16": 16, "U16": 16, "F16": 16, "BF16": 16,
    "I32": 32, "U32": 32, "F32": 32,
    "I64": 64, "U64": 64, "F64": 64, "C64": 64,
}  # fmt: skip


def check_safetensors(path: Path) -> dict[str, int]:
    """Does the file hold what its header says? Reads the header only.

    Returns:
        how many numbers each tensor holds, by name.

    Raises:
        ProbeError: missing, truncated or corrupt (CKPT002), with expected and actual bytes.
    """
    if not os.path.isfile(path):
        raise _broken(path, "expected a safetensors file, found none")
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or length > min(size - 8, MAX_HEADER):
                raise _broken(
                    path, f"expected {8 + length} bytes of header or more, found a file of {size} bytes"
                )
            header = parse_object(file.read(length))
    except OSError as error:
        raise _broken(path, f"expected a readable file: {error.strerror}") from error
    except ValueError as error:
        raise _broken(path, f"expected a safetensors header, found no such thing ({error})") from error
    header.pop("__metadata__", None)
    expected = 8 + length + _data_bytes(path, header)
    if expected != size:
        raise _broken(path, f"expected {expected} bytes by its header, found {size}")
    return {name: math.prod(entry["shape"]) for name, entry in header.items()}


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a file, on the CPU.

    Raises:
        ProbeError: the file is damaged (CKPT002).
    """
    check_safetensors(path)
    with library_call(lambda words: _broken(path, f"expected a safetensors file ({words})")):
        tensors: dict[str, Tensor] = load_file(path)
        return tensors


def _data_bytes(path: Path, header: dict[str, Any]) -> int:
    """The bytes that contiguous tensors take; raises where the header contradicts itself."""
    end = 0
    try:
        for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
            start, stop = entry["data_offsets"]
            count = math.prod(entry["shape"])
            if start != end or count < 0 or (stop - start) * 8 != count * _BITS[entry["dtype"]]:
                raise _broken(
                    path,
                    f"expected tensor {name} of {entry['dtype']} {entry['shape']} at byte {end}, found "
                    f"bytes {start} to {stop} in the header",
                )
            end = stop
    except (KeyError, TypeError, ValueError) as error:
        raise _broken(path, "expected dtype, shape and data_offsets for each tensor of the header") from error
    return end


def _broken(path: Path, what: str) -> ProbeError:
    return ProbeError(f"{path}: {what}: the file is missing, truncated or corrupt", code="CKPT002")
