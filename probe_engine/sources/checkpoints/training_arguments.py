"""`training_args.bin`: the trainer's plain arguments, read without unpickling."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeGuard

from probe_engine.sources.checkpoints.names import writable
from probe_engine.sources.checkpoints.static_pickle import Opaque, pickled, read_pickles
from probe_engine.types import Scalar

FILE_NAME = "training_args.bin"
MAX_TEXT = 1000
"""Characters; a longer text is no plain argument."""


@dataclass(frozen=True, slots=True)
class TrainingArguments:
    """The trainer's plain scalar arguments, empty with a note where they can't be read."""

    values: Mapping[str, Scalar] = field(default_factory=dict)
    note: str = ""


def read_training_arguments(folder: Path) -> TrainingArguments:
    """The scalar attributes of the pickled arguments object; enumerations as their value.

    Never executes anything, never raises: the file is a pickle, and a checkpoint is untrusted.
    """
    path = folder / FILE_NAME
    if not os.path.isfile(path):
        return TrainingArguments(note=f"no {FILE_NAME}")
    try:
        data = pickled(path)
    except ValueError as error:
        return TrainingArguments(note=f"{FILE_NAME}: {writable(str(error))}")
    for pickle in read_pickles(data):
        if isinstance(pickle.top, Opaque) and isinstance(pickle.top.state, dict):
            return TrainingArguments(_scalars(pickle.top.state))
    return TrainingArguments(note=f"{FILE_NAME} holds no pickled arguments object")


def _scalars(attributes: Mapping[str, object]) -> dict[str, Scalar]:
    scalars: dict[str, Scalar] = {}
    for name, attribute in attributes.items():
        value = attribute
        if isinstance(attribute, Opaque) and attribute.state is None and len(attribute.args) == 1:
            value = attribute.args[0]  # an enumeration's member is pickled as class(value)
        if _is_plain(name) and _is_plain(value):
            scalars[name] = value
    return scalars


def _is_plain(value: object) -> TypeGuard[Scalar]:
    match value:
        case bool() | float() | None:
            return True
        case int():
            return value.bit_length() < 64
        case str():
            return len(value) <= MAX_TEXT and writable(value) == value
        case _:
            return False
