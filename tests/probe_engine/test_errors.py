from __future__ import annotations

import pytest
import torch

from probe_engine.errors import memory_ran_out


def test_the_three_ways_of_running_out_of_memory_are_known() -> None:
    with pytest.raises(RuntimeError) as refused:
        torch.empty(10**15)
    assert memory_ran_out(refused.value)
    assert memory_ran_out(torch.OutOfMemoryError("CUDA out of memory"))
    assert memory_ran_out(MemoryError())
    assert not memory_ran_out(RuntimeError("index out of range"))
