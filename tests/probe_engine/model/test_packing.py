"""Which sequences share a pass."""

from __future__ import annotations

import itertools

from against_loop import UNITS
from hypothesis import given
from hypothesis import strategies as st

from probe_engine.model.unit_gradients.fused import packing
from probe_engine.model.unit_gradients.fused.packing import PASS_TOKENS, rectangles

lengths = st.lists(st.integers(2, 40), min_size=1, max_size=7)


@given(lengths, st.integers(1, 120))
def test_rectangles_are_the_cheapest(sizes, budget):
    found = rectangles(sizes, budget)
    assert sorted(i for rows in found for i in rows) == list(range(len(sizes)))

    def cost(cut):
        total = 0
        for rows in cut:
            columns = max(sizes[i] for i in rows)
            if len(rows) > 1 and (len(rows) * columns > budget or len(rows) == columns):
                return float("inf")
            total += len(rows) * columns + PASS_TOKENS
        return total

    order = sorted(range(len(sizes)), key=lambda i: -sizes[i])
    every = (
        [
            order[a:b]
            for a, b in itertools.pairwise(
                [0, *(i + 1 for i in range(len(order) - 1) if bits >> i & 1), len(order)]
            )
        ]
        for bits in range(2 ** (len(order) - 1))
    )
    assert cost(found) == min(map(cost, every))


def test_windows_hold_whole_units_within_the_budget():
    found = packing.windows(UNITS, range(len(UNITS)), 60, 60)
    assert [n for w in found for n in w.numbers] == list(range(len(UNITS)))
    for window in found:
        assert len(window.numbers) == 1 or sum(u.tokens for u in window.units) <= 60
        assert window.oversize == (sum(u.tokens for u in window.units) > 60)
