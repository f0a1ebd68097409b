"""training_args.bin is read without executing it, whatever its bytes are."""

from __future__ import annotations

import enum
import math
import os
import pickle
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from trl import GRPOConfig

from probe_engine.sources.checkpoints.static_pickle import MAX_BYTES, Opaque, read_pickles
from probe_engine.sources.checkpoints.training_arguments import read_training_arguments

NAME = "training_args.bin"


class Colour(enum.Enum):
    RED = "red"


class Arguments:
    """Stands for a trainer's arguments object."""

    def __init__(self, **attributes: Any) -> None:
        self.__dict__.update(attributes)


@pytest.mark.parametrize("zipped", [True, False])
def test_the_values_are_those_that_the_trainer_pickled(tmp_path: Path, zipped: bool) -> None:
    args = GRPOConfig(
        output_dir=str(tmp_path),
        use_cpu=True,
        bf16=False,
        report_to=[],
        beta=0.04,
        loss_type="grpo",
        num_generations=4,
        max_completion_length=99,
        scale_rewards=False,
        optim="adamw_torch",
        mask_truncated_completions=True,
    )
    torch.save(args, tmp_path / NAME, _use_new_zipfile_serialization=zipped)
    read = read_training_arguments(tmp_path)
    assert read.note == ""
    plain = {k: v for k, v in vars(args).items() if v is None or type(v) in (bool, int, float, str)}
    assert {name: read.values[name] for name in plain} == plain
    assert (read.values["optim"], read.values["scale_rewards"]) == ("adamw_torch", "none")


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_every_protocol_is_understood(tmp_path: Path, protocol: int) -> None:
    values = {"a": 1, "b": -(2**40), "c": 0.5, "d": "text é", "e": True, "f": None}
    args = Arguments(**values, colour=Colour.RED, many=[1, {"x": 2}], huge=2**70, long="x" * 2000)
    (tmp_path / NAME).write_bytes(pickle.dumps(args, protocol))
    assert read_training_arguments(tmp_path).values == values | {"colour": "red"}


class Planted:
    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.trace),)


def test_a_planted_call_is_an_opaque_name(tmp_path: Path) -> None:
    data = pickle.dumps({"x": Planted(tmp_path / "trace")})
    (pickled,) = read_pickles(data)
    assert pickled.imports == [f"{os.mkdir.__module__}.mkdir"]
    call = pickled.top["x"]  # type: ignore[index]
    assert isinstance(call, Opaque)
    assert call.args == (str(tmp_path / "trace"),)
    assert not (tmp_path / "trace").exists()


@given(st.binary(max_size=300))
def test_any_bytes_are_read_without_an_exception(data: bytes) -> None:
    assert len(list(read_pickles(data))) <= 8


@given(
    changes=st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), min_size=1), share=st.floats(0, 1)
)
def test_a_damaged_file_gives_plain_values_or_a_note(
    changes: list[tuple[float, int]], share: float, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.getbasetemp()
    torch.save(Arguments(beta=0.1, colour=Colour.RED), folder / NAME)
    content = bytearray((folder / NAME).read_bytes())
    for place, value in changes:
        content[int(place * len(content))] = value
    (folder / NAME).write_bytes(content[: int(share * len(content))])
    read = read_training_arguments(folder)
    assert all(v is None or isinstance(v, bool | int | float | str) for v in read.values.values())
    assert not (read.values and read.note)


@pytest.mark.parametrize(
    "data",
    [
        b"(" * MAX_BYTES,
        b"}q\x00" + b"h\x00h\x00b" * (MAX_BYTES // 5),
        b"(" + b"N" * (MAX_BYTES - 3) + b"t.",
        b")" + b"\x85" * (MAX_BYTES - 2) + b".",
        b"I" + b"9" * (MAX_BYTES - 3) + b"\n.",
    ],
    ids=["marks", "builds", "a wide tuple", "a deep tuple", "a long number"],
)
def test_time_is_bounded(data: bytes) -> None:
    began = time.monotonic()
    list(read_pickles(data))
    assert time.monotonic() - began < 20


def test_no_file_and_a_foreign_object_are_notes(tmp_path: Path) -> None:
    assert NAME in read_training_arguments(tmp_path).note
    torch.save({"a": math.pi}, tmp_path / NAME)
    read = read_training_arguments(tmp_path)
    assert read.values == {}
    assert "no pickled arguments" in read.note
