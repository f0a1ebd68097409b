"""X and Y of a few units, for the check of gradient flow: alone or in shared passes, the same sums."""

from __future__ import annotations

import pytest
import tiny
import torch
from against_loop import UNITS

from probe_engine.estimators.mapping import GradientSquares
from probe_engine.model.gradient_flow import gradients
from probe_engine.model.unit_gradients import unit_gradients
from probe_engine.registry import ParameterRegistry
from probe_engine.vectors import ParameterVector


def summed(vectors: list[ParameterVector], index: int) -> torch.Tensor:
    return sum(v.tensors[index] for v in vectors)


@pytest.mark.parametrize("method", ["fused", "loop"])
@pytest.mark.parametrize("units", [1, 3])
def test_where_the_order_of_states_is_in_question_all_units_are_summed(method: str, units: int) -> None:
    model = tiny.model(dtype=torch.float64)
    registry = ParameterRegistry.of(model)
    loop, asked = (
        unit_gradients(name, model, registry, micro_batch=8, temperature=1.0) for name in ("loop", method)
    )
    squares = GradientSquares(registry)
    seen = gradients(asked, registry, UNITS[:units], len(registry), squares)
    alone = [loop.measure(unit.pair()) for unit in UNITS[:units]]
    for index, of_squares in enumerate(squares.sampled):
        torch.testing.assert_close(seen.x.tensors[index], summed([m.x for m in alone], index))
        ys = [m.y.tensors[index] for m in alone]
        torch.testing.assert_close(seen.y.tensors[index], summed([m.y for m in alone], index))
        torch.testing.assert_close(of_squares, sum(y.square() for y in ys).flatten())
    assert seen.x_weights_nonzero
    assert seen.y_weights_nonzero


def test_else_the_first_unit_that_shows_all_is_enough() -> None:
    model = tiny.model(dtype=torch.float64)
    registry = ParameterRegistry.of(model)
    fused = unit_gradients("fused", model, registry, micro_batch=8, temperature=1.0)
    seen = gradients(fused, registry, UNITS, len(registry))
    torch.testing.assert_close(seen.x.norm(), fused.measure(UNITS[0].pair()).x.norm())
    everything = gradients(fused, registry, UNITS, len(registry) + 1)  # never complete
    assert everything.x.norm() != pytest.approx(seen.x.norm(), rel=0.01)
