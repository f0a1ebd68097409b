from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from trl.trainer.utils import nanstd

from probe_engine.estimators.advantages import advantages

rewards = st.integers(2, 5).flatmap(
    lambda g: st.lists(
        st.lists(st.floats(-10, 10).map(lambda x: round(x, 2)), min_size=g, max_size=g),
        min_size=1,
        max_size=6,
    )
)


def as_trl_does(rewards: list[list[float]], scale: str) -> torch.Tensor:
    """The lines of GRPOTrainer that make advantages, in float64 and with its own `nanstd`."""
    r = torch.tensor(rewards, dtype=torch.float64)
    std = nanstd(r.flatten()).expand_as(r) if scale == "batch" else nanstd(r, dim=1)[:, None].expand_as(r)
    centred = r - r.mean(1, keepdim=True)
    return centred if scale == "none" else centred / (std + 1e-4)


@given(rewards, st.sampled_from(["group", "batch", "none"]))
def test_same_as_trl(rewards, scale):
    torch.testing.assert_close(
        torch.tensor(advantages(rewards, scale), dtype=torch.float64),
        as_trl_does(rewards, scale),
        rtol=1e-6,  # trl divides counts in float32
        atol=1e-6,
    )


def test_groups_may_differ_in_size():
    one, two = advantages([[0.0, 1.0], [0.0, 0.0, 3.0]], "none")
    assert one == [-0.5, 0.5]
    assert two == pytest.approx([-1, -1, 2])


@pytest.mark.parametrize("scale", ["group", "batch", "none"])
@pytest.mark.parametrize("reward", [0.1, 1 / 3, 1e-300, 7.7])
def test_equal_rewards_give_exactly_zero(scale, reward):
    first, _ = advantages([[reward] * 7, [0.0, 1.0]], scale)
    assert first == [0.0] * 7
