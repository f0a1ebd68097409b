"""`torch.save` files, read as tensors only."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from probe_engine.errors import ProbeError
from probe_engine.sources.checkpoints.library import description, library_call
from probe_engine.sources.checkpoints.names import listed, shown
from probe_engine.sources.checkpoints.static_pickle import pickled, read_pickles

_PLAIN_MODULES = ("torch.", "collections.", "numpy.", "_codecs.")


def read_torch(path: Path, *, trust: bool = False) -> Any:
    """What `torch.save` wrote, on the CPU, with `weights_only=True`.

    Args:
        path: the file.
        trust: unpickle it where tensors-only reading refuses it. That runs whatever the file says.

    Raises:
        ProbeError: missing or damaged (CKPT002), or it needs unpickling (CKPT007).
    """
    if not os.path.isfile(path):
        raise ProbeError(f"{path}: expected a torch.save file, found none", code="CKPT002")
    with library_call(lambda words: _damaged(path, words)):
        try:
            return torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:
            # Damage and foreign objects reach us as the same exceptions: look into the pickle.
            foreign = _foreign_imports(path)
            if not foreign and "GLOBAL" not in str(error):
                raise
            if not trust:
                raise _needs_unpickling(path, foreign, description(error)) from error
        return torch.load(path, map_location="cpu", weights_only=False)


def state_dict_of(value: Any, source: str) -> dict[str, Tensor]:
    """Checks that a value is a state dict: names to plain dense tensors.

    Raises:
        ProbeError: it is something else (CKPT002).
    """
    if not isinstance(value, Mapping) or not value:
        raise ProbeError(
            f"{source}: expected a state dict, found {type(value).__name__}"
            + (" without entries" if isinstance(value, Mapping) else ""),
            code="CKPT002",
        )
    odd = [name for name, tensor in value.items() if not (isinstance(name, str) and is_plain(tensor))]
    if odd:
        raise ProbeError(
            f"{source}: expected names with dense tensors, found something else under {shown(odd)}",
            code="CKPT002",
        )
    return dict(value)


def is_plain(value: object) -> bool:
    """Is it a dense tensor with its data here, as parameters and their moments are?"""
    return (
        isinstance(value, Tensor)
        and value.layout == torch.strided
        and value.device.type == "cpu"
        and not value.is_quantized
    )


def _foreign_imports(path: Path) -> list[str]:
    try:
        data = pickled(path)
    except ValueError:
        return []
    imports = {name for pickle in read_pickles(data) for name in pickle.imports}
    return sorted(name for name in imports if not name.startswith(_PLAIN_MODULES))


def _needs_unpickling(path: Path, foreign: list[str], words: str) -> ProbeError:
    held = f"it would import {shown(foreign)}" if foreign else words
    return ProbeError(
        f"{path}: expected tensors and plain values; {held}. Only unpickling could read it, and that can "
        "run any code: refused, nothing was executed",
        code="CKPT007",
        evidence={"imports": listed(foreign)},
    )


def _damaged(path: Path, words: str) -> ProbeError:
    return ProbeError(
        f"{path}: expected a torch.save file, found {os.path.getsize(path)} bytes that torch can't read "
        f"({words}): the file is truncated or corrupt",
        code="CKPT002",
    )
