"""CKPT findings on read data."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from probe_engine.checks.checkpoint import (
    finite_weights,
    keys_with_a_place,
    read_without_unpickling,
    recognised,
    tokenizer_fits,
)
from probe_engine.sources.checkpoints.step import Step
from probe_engine.sources.checkpoints.tokenizer import FoundTokenizer
from probe_engine.sources.checkpoints.training_arguments import TrainingArguments


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_one_broken_weight_is_found_and_named(value: float, dtype: torch.dtype) -> None:
    weights = [(f"w{i}", torch.ones(4, 4, dtype=dtype)) for i in range(3)]
    assert finite_weights(weights).status == "ok"
    weights[1][1][2, 3] = value
    found = finite_weights(weights)
    assert (found.code, found.status, found.value) == ("CKPT006", "fail", 1)
    assert found.evidence["parameters"] == ["w1"]


@pytest.mark.parametrize(("size", "status"), [(31, "ok"), (32, "ok"), (33, "fail")])
def test_the_tokenizer_may_not_exceed_the_embedding(size: int, status: str) -> None:
    assert tokenizer_fits(FoundTokenizer(range(size), Path()), 32).status == status


def test_a_missing_tokenizer_is_worth_knowing_and_a_broken_one_a_warning() -> None:
    assert tokenizer_fits(FoundTokenizer(None, None), 32).status == "info"
    broken = tokenizer_fits(FoundTokenizer(None, Path(), "no JSON"), 32)
    assert broken.status == "warn"
    assert "no JSON" in broken.message


def test_keys_without_a_place() -> None:
    assert keys_with_a_place((), 5).status == "ok"
    found = keys_with_a_place(("v_head.weight",), 5)
    assert (found.status, found.evidence) == ("fail", {"unexpected": ["v_head.weight"]})


def test_unread_arguments_say_why() -> None:
    assert read_without_unpickling(TrainingArguments({"beta": 0.0})).status == "ok"
    unread = read_without_unpickling(TrainingArguments(note="cut in half"))
    assert unread.status == "info"
    assert "cut in half" in unread.message


def test_a_damaged_record_of_the_step_is_told() -> None:
    assert recognised("hf-trainer", Step(3)).message == "hf-trainer, step 3"
    assert recognised("hf-trainer", Step(None, "no JSON")).status == "info"
