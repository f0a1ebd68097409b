"""Weight files of a folder: one file or shards with an index, safetensors or torch.save."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from probe_engine.errors import ProbeError
from probe_engine.sources.checkpoints.json_file import read_object
from probe_engine.sources.checkpoints.names import shown
from probe_engine.sources.checkpoints.safetensors_file import check_safetensors, read_safetensors
from probe_engine.sources.checkpoints.torch_file import read_torch, state_dict_of

MODEL_FILES = ("model.safetensors", "pytorch_model.bin")
ADAPTER_FILES = ("adapter_model.safetensors", "adapter_model.bin")


@dataclass(frozen=True, slots=True)
class WeightFiles:
    """Files that together hold a state dict, known to be whole as far as headers tell."""

    paths: tuple[Path, ...]
    nbytes: tuple[int, ...]
    """Of each file, bytes."""
    numbers: int | None
    """In all tensors, by the headers; None where the files (`torch.save`'s) have none that tells."""

    @property
    def folder(self) -> Path:
        """Where they lie."""
        return self.paths[0].parent


def find_weights(folder: Path, file_names: tuple[str, ...] = MODEL_FILES) -> WeightFiles:
    """The weight files of a folder, the first of `file_names` (or of its index) that exists.

    Raises:
        ProbeError: no weights, a shard of the index is missing, or a safetensors file is not
            what its header says (CKPT002).
    """
    for name in file_names:
        index = folder / f"{name}.index.json"
        if os.path.isfile(folder / name):
            return _checked((folder / name,), {})
        if os.path.isfile(index):
            shards = _weight_map(index)
            return _checked(tuple(folder / shard for shard in sorted(set(shards.values()))), shards)
    found = sorted(entry.name for entry in folder.glob("*"))
    raise ProbeError(
        f"{folder}: expected {' or '.join(file_names)} (or its shards with an index), found "
        f"{shown(found, 8) or 'an empty folder'}: the weights are missing",
        code="CKPT002",
    )


def read_weights(path: Path, *, trust: bool = False) -> dict[str, Tensor]:
    """The state dict in one of the files, on the CPU.

    Raises:
        ProbeError: damaged (CKPT002), or a pickle (CKPT007).
    """
    if path.suffix == ".safetensors":
        return read_safetensors(path)
    return state_dict_of(read_torch(path, trust=trust), str(path))


def _weight_map(index: Path) -> Mapping[str, str]:
    try:
        weight_map = read_object(index).get("weight_map")
    except ValueError as error:
        raise ProbeError(f"{error}: the index of the shards is corrupt", code="CKPT002") from error
    # A shard is a file beside its index: a path elsewhere would read what is no part of the checkpoint.
    if (
        not isinstance(weight_map, dict)
        or not weight_map
        or not all(isinstance(shard, str) and Path(shard).name == shard for shard in weight_map.values())
    ):
        raise ProbeError(
            f"{index}: expected a weight_map of names to files beside it, found something else",
            code="CKPT002",
        )
    return weight_map


def _checked(paths: tuple[Path, ...], weight_map: Mapping[str, str]) -> WeightFiles:
    absent = [path.name for path in paths if not os.path.isfile(path)]
    if absent:
        raise ProbeError(
            f"{paths[0].parent}: expected {len(paths)} shards by the index, {shown(absent)} missing",
            code="CKPT002",
        )
    numbers: int | None = 0
    for path in paths:
        if path.suffix != ".safetensors":
            numbers = None
            continue
        held = check_safetensors(path)
        numbers = None if numbers is None else numbers + sum(held.values())
        missing = {name for name, shard in weight_map.items() if shard == path.name} - held.keys()
        if missing:
            raise ProbeError(
                f"{path}: expected {shown(sorted(missing))} in this shard by the index, found no such tensor",
                code="CKPT002",
            )
    return WeightFiles(paths, tuple(os.path.getsize(path) for path in paths), numbers)
