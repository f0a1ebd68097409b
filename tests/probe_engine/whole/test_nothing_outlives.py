"""A run leaves no tensor behind: a screen that runs again, or a training script, would fill its memory."""

from __future__ import annotations

import gc

import pytest
import torch
from bad_inputs import Copy

from probe_engine import probe


def tensors() -> int:
    gc.collect()
    # By type, for isinstance wakes every lazy module of every library.
    return sum(type(held) in (torch.Tensor, torch.nn.Parameter) for held in gc.get_objects())


@pytest.mark.parametrize("method", ["fused", "loop", "alpha"])
def test_nothing_of_a_run_outlives_it(method: str, copy: Copy) -> None:
    checkpoint = copy("lora")
    probe(checkpoint, device="cpu", method=method)  # what libraries keep, they keep from the first run on
    before = tensors()
    probe(checkpoint, device="cpu", method=method)
    assert tensors() <= before
