import itertools
from typing import Any

import pytest
import tiny
import torch
from torch import nn

from probe_engine import probe
from probe_engine.model import pairwise
from probe_engine.model.kept_vectors import KeptVectors
from probe_engine.model.pairwise import PairwiseDots
from probe_engine.registry import ParameterRegistry
from probe_engine.vectors import ParameterVector, Share

UNITS = 5
SHAPES = {"matrix": (6, 3), "scalar": (), "unused": (4, 2), "cube": (5, 2, 3), "row": (7,)}
DTYPES = {"cube": torch.float64, "row": torch.bfloat16}


@pytest.fixture
def registry() -> ParameterRegistry:
    model = nn.Module()
    for name, shape in SHAPES.items():
        setattr(model, name, nn.Parameter(torch.zeros(shape, dtype=DTYPES.get(name, torch.float32))))
    return ParameterRegistry.of(model)


def drawn(registry: ParameterRegistry, seed: int) -> list[list[torch.Tensor | None]]:
    """A vector for each unit; one parameter has no gradient in any of them, another in one."""
    generator = torch.Generator().manual_seed(seed)

    def vector(unit: int) -> list[torch.Tensor | None]:
        missing = {"unused"} | ({"row"} if unit == 1 else set())
        return [
            None if name in missing else torch.randn(p.shape, generator=generator, dtype=torch.float64)
            for name, p in registry
        ]

    return [vector(unit) for unit in range(UNITS)]


def kept(registry: ParameterRegistry, vectors: list[list[torch.Tensor | None]]) -> KeptVectors:
    """Of vectors that come unit by unit in pairs, the large parameters by rows."""
    found = KeptVectors(registry, UNITS, torch.device("cpu"))
    for of_unit in found._blocks.values():
        of_unit.fill_(float("nan"))  # what fresh memory may hold
    for units in ([0, 1], [2, 3], [4]):
        for index, parameter in enumerate(registry.parameters):
            rows = [Share(index, 0, 2), Share(index, 2, len(parameter))] if parameter.dim() > 1 else []
            for share in rows or [Share(index)]:
                there = [u for u in units if vectors[u][index] is not None]
                if there:
                    found.put(share, there, torch.stack([share.of(vectors[u][index]) for u in there]))
    return found


def flat(vector: list[torch.Tensor | None], registry: ParameterRegistry) -> torch.Tensor:
    """As it is kept: in float32 or wider, 0 where there is nothing."""
    tensors = zip(vector, registry.parameters, strict=True)
    return torch.cat(
        [
            torch.zeros(p.numel(), dtype=torch.float64)
            if t is None
            else t.to(torch.promote_types(p.dtype, torch.float32)).double().flatten()
            for t, p in tensors
        ]
    )


@pytest.mark.parametrize("widened", [2**21, 16])
@pytest.mark.parametrize("growth", [(5,), (2, 3, 5), (1, 2, 3, 4, 5, 5)])
def test_products_of_all_pairs_are_those_of_the_vectors(registry, monkeypatch, growth, widened):
    monkeypatch.setattr(pairwise, "WIDENED", widened)
    xs, pys = drawn(registry, 1), drawn(registry, 2)
    dots = PairwiseDots(kept(registry, xs), kept(registry, pys))
    for units in growth:
        found = dots.matrix(units)
        for u, v in itertools.product(range(units), repeat=2):
            expected = float(flat(xs[u], registry) @ flat(pys[v], registry))
            assert float(found[u, v]) == pytest.approx(expected, rel=1e-12)
        assert found.shape == (units, units)


def test_products_with_directions(registry):
    xs, pys = drawn(registry, 1), drawn(registry, 2)
    dots = PairwiseDots(kept(registry, xs), kept(registry, pys))
    dots.matrix(4)
    along_x, along_py = (
        ParameterVector(
            registry.ids,
            # A direction may have a part where no unit has, and none where units have.
            tuple(
                None if name == "scalar" else torch.randn(p.shape, generator=g, dtype=torch.float64)
                for name, p in registry
            ),
        )
        for g in (torch.Generator().manual_seed(s) for s in (3, 4))
    )
    found = dots.with_directions(along_x, along_py)
    for vectors, direction, of_units in zip((xs, pys), (along_x, along_py), found, strict=True):
        at = flat(list(direction.tensors), registry)
        expected = [float(flat(v, registry) @ at) for v in vectors[:4]]
        assert of_units.tolist() == pytest.approx(expected, rel=1e-12)


def test_vectors_lie_in_one_tensor_for_each_dtype(registry):
    found = kept(registry, drawn(registry, 1))
    sizes = {dtype: tensor.shape for dtype, tensor in found._blocks.items()}
    assert sizes == {torch.float32: (UNITS, 18 + 1 + 8 + 7), torch.float64: (UNITS, 30)}


def test_they_may_lie_elsewhere_than_the_parameters() -> None:
    registry = ParameterRegistry.of(nn.Linear(3, 2, device="meta"))
    found = KeptVectors(registry, 1, torch.device("cpu"))
    found.put(Share(0), [0], torch.arange(6.0).view(1, 2, 3))
    (rows,) = found.rows(slice(0, 1))
    assert rows.tolist() == [[0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 0.0, 0.0]]


def test_a_run_says_where_they_are() -> None:
    def on(**options: Any) -> str | None:
        model = tiny.with_lora(tiny.model())
        report = probe(model, optimizer=tiny.optimizer(model), batch=tiny.batch(), fail_on="never", **options)
        assert report.method is not None
        assert report.method.vectors_kept == (report.method.vectors_on is not None)
        return report.method.vectors_on

    assert on() == "cpu"
    assert on(memory_budget="0B") is None
