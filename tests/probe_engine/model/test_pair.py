"""Two responses that stand for a unit where a check asks for little."""

from __future__ import annotations

from dataclasses import replace

import pytest
import tiny
import torch

from probe_engine.model.unit_gradients import UnitObjective, objectives
from probe_engine.model.unit_gradients.objective import BRIEF_TOKENS


def unit(advantages: list[float]) -> UnitObjective:
    (made,) = objectives(tiny.batch(sizes=(4,), max_length=40))
    return replace(made, advantages=torch.tensor(advantages, dtype=torch.float64))


def test_the_highest_and_the_lowest_advantage_in_their_order() -> None:
    whole = unit([0.1, 0.9, -0.4, 0.2])
    pair = whole.pair()
    assert pair.sequences == (whole.sequences[1], whole.sequences[2])
    assert pair.advantages.tolist() == [0.9, -0.4]
    assert [r.tokens for r in pair.unit.groups[0].responses] == [s.response for s in pair.sequences]
    assert (pair.lam.tolist(), pair.kappa.tolist()) == (whole.lam[1:3].tolist(), whole.kappa[1:3].tolist())


def test_not_the_same_response_twice_where_there_is_another() -> None:
    whole = unit([0.1, 0.9, -0.4, 0.2])
    a, b, _, d = whole.sequences
    twice = replace(whole, sequences=(a, b, b, d))
    assert twice.pair().sequences == (a, b)
    same = replace(whole, sequences=(b,) * 4)
    assert same.pair().sequences == (b, b)


@pytest.mark.parametrize("longer", [0, 3])
def test_brief_is_the_ends_of_the_pair(longer: int) -> None:
    """As long as one another where the pair's are, and of two lengths where theirs differ."""
    made = unit([0.1, 0.9, -0.4, 0.2])
    responses = [tuple(range(n, n + 20 + longer * (n % 2))) for n, _ in enumerate(made.sequences)]
    sequences = [replace(s, response=r) for s, r in zip(made.sequences, responses, strict=True)]
    whole = replace(made, sequences=tuple(sequences))
    pair, brief = whole.pair().sequences, whole.brief().sequences
    for short, long in zip(brief, pair, strict=True):
        context = BRIEF_TOKENS - (len(long) < max(map(len, pair)))
        assert short.response == long.response[-BRIEF_TOKENS:]
        assert short.prompt == (long.prompt + long.response[:-BRIEF_TOKENS])[-context:]
    assert (len(brief[0]) == len(brief[1])) == (len(pair[0]) == len(pair[1])) == (not longer)


def test_a_pair_whose_ends_are_the_same_stays_whole() -> None:
    whole = unit([0.1, 0.9, -0.4, 0.2])
    end = (1,) * (2 * BRIEF_TOKENS)
    alike = [replace(s, response=(n, *end)) for n, s in enumerate(whole.sequences)]
    unit_alike = replace(whole, sequences=tuple(alike))
    assert unit_alike.brief().sequences == unit_alike.pair().sequences
