"""Vectors over parameters: held and lazy, whole and by shares; inner products."""

from __future__ import annotations

import math

import pytest
import tiny
import torch

from probe_engine.registry import ParameterRegistry
from probe_engine.vectors import BLOCK, FEW_BLOCKS, SHARE, ParameterVector, Share, dots, inner


def test_vectors_over_other_objects_do_not_mix() -> None:
    registries = (ParameterRegistry.of(tiny.model("llama")) for _ in range(2))
    a, b = (ParameterVector(r.ids, [p.detach() for p in r.parameters]) for r in registries)
    with pytest.raises(ValueError, match="re-wrapped"):
        a.dot(b)


def test_what_is_made_of_vectors_is_made_when_it_is_asked_for() -> None:
    asked: list[int] = []

    def ones(share: Share) -> torch.Tensor | None:
        asked.append(share.parameter)
        return None if share.parameter == 1 else torch.full((3,), float(share.parameter))

    held = ParameterVector((10, 11, 12), (torch.ones(3), torch.ones(3), None))
    vector = held.made(ones)
    made = vector.scaled(2.0).plus(held, -1.0)
    assert not asked
    assert [t.tolist() for t in made.tensors] == [[-1.0] * 3, [-1.0] * 3, [4.0] * 3]
    assert asked == [0, 1, 2]
    assert made.tensors[-1].tolist() == [4.0] * 3
    assert len(made.tensors[1:]) == 2
    assert asked == [0, 1, 2, 2, 1, 2]
    assert made.dot(held) == -6
    assert made.norm() == pytest.approx(54**0.5)


def test_a_parameter_of_many_shares_is_gone_through_whole() -> None:
    long = torch.randn((2 * SHARE // 7 + 3, 7), generator=torch.Generator().manual_seed(0))
    long[-1, -1] = math.nan
    vector = ParameterVector((1, 2, 3), (long[:-1], None, torch.ones(())))
    assert [share.parameter for share in vector.shares] == [0, 0, 0, 1, 2]
    square = float(long[:-1].double().square().sum())
    assert vector.dot(vector.scaled(3.0)) == pytest.approx(3 * (square + 1))
    seen = vector.plus(vector).summary()
    assert (seen.non_none, seen.non_zero, seen.not_finite) == (2, 2, ())
    assert seen.norm == pytest.approx(2 * (square + 1) ** 0.5)
    assert ParameterVector((1,), (long,)).summary().not_finite == (0,)


def test_rows_are_made_as_the_whole_is() -> None:
    held = ParameterVector((1,), (torch.arange(12.0).view(4, 3),))
    made = held.scaled(2.0).plus(held)
    rows = Share(0, 1, 3)
    assert torch.equal(made.share(rows), made.tensors[0][1:3])
    assert torch.equal(made.share(rows).flatten(), made.tensors[0].flatten()[rows.span(held.tensors[0])])


def test_dot_products_accumulate_wider_than_the_parameters() -> None:
    parameter = torch.nn.Parameter(torch.ones(10_000, dtype=torch.bfloat16))
    registry = ParameterRegistry(("w",), (parameter,))
    ones = ParameterVector(registry.ids, (parameter.detach(),))
    # A bf16 running sum of ones stops at 256.
    assert ones.dot(ones) == 10_000


def test_one_pass_tells_all_that_is_counted_of_a_vector() -> None:
    tensors = (None, torch.zeros(3), torch.tensor([3.0, 0.0]), torch.tensor([torch.nan, 1.0]), torch.ones(2))
    vector = ParameterVector((1, 2, 3, 4, 5), tensors)
    seen = vector.summary()
    assert (seen.non_none, seen.non_zero, seen.not_finite) == (4, 3, (3,))
    whole = ParameterVector((3, 5), (tensors[2], tensors[4])).summary()
    assert whole.norm == pytest.approx(11**0.5)
    assert whole.not_finite == ()


def test_numbers_whose_squares_leave_float64_are_counted_all_the_same() -> None:
    numbers = (torch.tensor([1e-200], dtype=torch.float64), torch.tensor([1e200], dtype=torch.float64))
    seen = ParameterVector((1, 2), numbers).summary()
    assert (seen.non_zero, seen.not_finite) == (2, ())


@pytest.mark.parametrize("numbers", [3, BLOCK * FEW_BLOCKS - 1, BLOCK * FEW_BLOCKS + 5, 2**20 + 7])
@pytest.mark.parametrize(("dtype", "off"), [(torch.float32, 1e-8), (torch.float64, 1e-14)])
def test_dot_products_of_any_length_are_those_in_float64(
    numbers: int, dtype: torch.dtype, off: float
) -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(2, numbers, generator=generator, dtype=torch.float64).to(dtype) for _ in range(2))
    for other in (b, b[0]):
        products = a.double() * other.double()
        exact, sizes = [math.fsum(row.tolist()) for row in products], products.abs().sum(-1)
        found = dots(a, other)
        assert found.dtype == torch.float64
        assert bool(((found - torch.tensor(exact, dtype=torch.float64)).abs() <= off * sizes).all())
    assert inner(a, b) == pytest.approx(float(dots(a, b).sum()), rel=1e-6)
