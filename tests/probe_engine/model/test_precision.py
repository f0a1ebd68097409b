"""The precision of the forward is that of its coarsest part."""

from __future__ import annotations

from typing import Any

import pytest
import tiny
import torch
from torch import nn

from probe_engine.model.cut_graph import walk
from probe_engine.model.precision import coarsest
from probe_engine.model.unit_gradients import objectives


def computes_in(model: nn.Module) -> torch.dtype:
    (unit,) = objectives(tiny.batch(sizes=(2,)))
    return coarsest(model, walk(model, unit, 1.0).dtypes)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_one_dtype(dtype: torch.dtype) -> None:
    assert computes_in(tiny.model(dtype=dtype)) == dtype


def test_a_wide_adapter_on_a_narrow_base_is_narrow() -> None:
    model: Any = tiny.with_lora(tiny.model())
    model.get_base_model().model.embed_tokens.to(torch.bfloat16)
    for layer in model.get_base_model().model.layers:
        layer.to(torch.bfloat16)
    model.get_base_model().model.norm.to(torch.bfloat16)
    model.get_base_model().lm_head.to(torch.bfloat16)
    for name, parameter in model.named_parameters():
        if "lora" in name:
            parameter.data = parameter.data.float()
    assert computes_in(model) == torch.bfloat16


def test_autocast_inside_of_the_forward_counts() -> None:
    model: Any = tiny.model()
    model.forward = torch.autocast("cpu", torch.bfloat16)(model.forward)
    assert computes_in(model) == torch.bfloat16
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
