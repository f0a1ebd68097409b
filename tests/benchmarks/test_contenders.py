"""All contenders compute the same numbers: else their times would compare nothing."""

from __future__ import annotations

from dataclasses import replace

import per_sample
import pytest
import torch
from _batches import of_lengths
from _case import Case
from _literal import Literal
from _per_sample import eager_attention
from literal import largest_error


@pytest.fixture(params=["case", "full_case"])
def either(request: pytest.FixtureRequest) -> Case:
    return request.getfixturevalue(request.param)


def test_the_step_leaves_minus_mean_y_as_the_gradient(case: Case) -> None:
    case.step()
    left = [p.grad.clone() for p in case.policy.registry.parameters]
    case.optimizer.zero_grad()
    ys = [case.method("loop").measure(unit).y.tensors for unit in case.units]
    for gradient, *of_units in zip(left, *ys, strict=True):
        mean = torch.stack(of_units).mean(0)
        torch.testing.assert_close(-gradient, mean, rtol=1e-4, atol=1e-4 * float(mean.abs().max()))


def test_the_literal_algorithm_finds_the_probes_s_and_r(either: Case) -> None:
    dots = Literal(either).dots()
    assert len(dots.s) == len(either.units) // 2
    assert len(dots.r) == len(either.units)
    assert largest_error(dots, either.measure("loop")) < 1e-4


def test_lengths_that_differ_change_no_contender(case: Case) -> None:
    ragged = replace(case, batch=of_lengths(case.vocabulary, [7, 12, 9, 20, 8, 8, 15, 11], prompt=4))
    assert largest_error(Literal(ragged).dots(), ragged.measure()) < 1e-4


@pytest.mark.parametrize("library", per_sample.LIBRARIES)
def test_per_sample_gradients_make_the_same_x_and_y(either: Case, library: str) -> None:
    if library == "opacus":
        pytest.importorskip("opacus")
    error = per_sample.largest_error(either, per_sample.LIBRARIES[library])
    assert isinstance(error, float), error
    assert error < 1e-4
    assert not either.model.training
    assert all(p.grad is None for p in either.model.parameters())


def test_a_library_that_does_not_run_is_named_with_its_reason(case: Case) -> None:
    def absent(_: Case) -> None:
        raise ImportError("No module named 'absent'")

    said = per_sample.largest_error(case, absent)
    assert said == "not run: ImportError: No module named 'absent'"


def test_eager_attention_ends_with_its_block(case: Case) -> None:
    attention = case.method().attention
    with eager_attention(case):
        assert case.method().attention == "eager" != attention
    assert case.method().attention == attention


def test_chunks_hold_whole_units_in_their_order(case: Case) -> None:
    small = replace(case, micro_batch=3)
    assert small.chunks(case.units) == [[unit] for unit in case.units]
    assert case.chunks(case.units) == [case.units[:2], case.units[2:]]
