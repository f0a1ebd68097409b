"""What float16 takes from gradients, against numpy's rounding and against float64."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from torch import Tensor

from probe_engine.checks.numerics import small_gradients
from probe_engine.model.preconditioner import Preconditioner
from probe_engine.model.underflow import underflow
from probe_engine.model.unit_gradients import Measurement, UnitObjective, objectives, unit_gradients
from probe_engine.vectors import ParameterVector

ENTRIES = np.logspace(-9, 1, 41)
"""Per λ: from far below float16's smallest number to the middle of its range."""


def unit(max_length: int = 7, seed: int = 2) -> UnitObjective:
    return objectives(tiny.batch(sizes=(4, 4), max_length=max_length, seed=seed))[0]


class Rounded:
    """X = λ·v and Y = κ·v rounded to float16, as a kernel that computes in it would leave them."""

    def measure(self, objective: UnitObjective) -> Measurement:
        return Measurement(objective, torch.zeros(4), (), self._of(objective.lam), self._of(objective.kappa))

    def _of(self, weights: Tensor) -> ParameterVector:
        rounded = (float(weights[0]) * ENTRIES).astype(np.float16).astype(np.float32)
        return ParameterVector((1,), (torch.from_numpy(rounded),))


def test_what_is_lost_is_what_rounding_to_float16_takes() -> None:
    objective = unit()
    lam = float(objective.lam[0])
    method: Any = Rounded()
    seen = underflow(method, objective, Preconditioner((1,), (None,), ()))
    assert seen is not None
    run = (lam * ENTRIES).astype(np.float16).astype(np.float64)
    lifted = (lam * ENTRIES * seen.scale).astype(np.float16).astype(np.float64) / seen.scale
    assert np.isfinite(lifted).all()
    assert seen.x_lost == pytest.approx(np.linalg.norm(run - lifted) / np.linalg.norm(lifted), rel=1e-6)
    assert seen.flushed == pytest.approx(((run == 0) & (lifted != 0)).mean())
    assert seen.flushed > 0.1
    assert seen.x_dot_py == pytest.approx(float(run @ run))


def vectors(dtype: torch.dtype, limit: int) -> tuple[ParameterVector, ParameterVector, float]:
    """X as the run has it, X lifted, and the distance that is reported, at L_max = `limit`."""
    policy = tiny.policy(tiny.model(dtype=dtype))
    method = unit_gradients("loop", policy.model, policy.registry, micro_batch=8, temperature=1.0)
    batch = dataclasses.replace(tiny.batch(sizes=(4, 4)), max_completion_length=limit)
    objective = objectives(batch)[0]
    identity = Preconditioner(policy.registry.ids, (None,) * len(policy.registry), ())
    seen = underflow(method, objective, identity)
    assert seen is not None
    lifted = dataclasses.replace(
        objective, lam=objective.lam * seen.scale, kappa=objective.kappa * seen.scale
    )
    return method.measure(objective).y, method.measure(lifted).y.scaled(1 / seen.scale), seen.py_lost


def flat(vector: ParameterVector) -> Tensor:
    return torch.cat([t.double().flatten() for t in vector.tensors if t is not None])


def test_a_long_limit_in_float16_loses_what_float64_has() -> None:
    limit = 2**17
    run, lifted, lost = vectors(torch.float16, limit)
    truth, _, none = vectors(torch.float64, limit)
    error = (flat(run) - flat(truth)).norm() / flat(truth).norm()
    mended = (flat(lifted) - flat(truth)).norm() / flat(truth).norm()
    assert error > 0.5
    assert mended < 0.05
    assert lost == pytest.approx(float(error), rel=0.1)
    assert none == 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("limit", [7, 2**20])
def test_the_range_of_float32_loses_nothing(dtype: torch.dtype, limit: int) -> None:
    run, lifted, lost = vectors(dtype, limit)
    assert lost == 0
    assert torch.equal(flat(run), flat(lifted))


def test_gradients_that_are_no_number_wait_for_their_own_finding() -> None:
    found = small_gradients(torch.float16, None)
    assert found.status == "skip"
    assert "GRAD011" in found.message
