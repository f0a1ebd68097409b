"""Two responses that stand for a unit where a check asks for little."""

from __future__ import annotations

from dataclasses import replace

import pytest
import tiny
import torch

from probe_engine.model.teacher_forcing import TokenSequence
from probe_engine.model.unit_gradients import UnitObjective, objectives
from probe_engine.model.unit_gradients.objective import BRIEF_CONTEXT, BRIEF_TOKENS


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


@pytest.mark.parametrize(("longer", "lengths"), [(0, (6, 5)), (3, (6, 5)), (-15, (5, 6))])
def test_brief_is_the_ends_of_the_pair(longer: int, lengths: tuple[int, int]) -> None:
    """Of the same prompt, and of two lengths."""
    made = unit([0.1, 0.9, -0.4, 0.2])
    responses = [tuple(range(n, n + 20 + longer * (n % 2))) for n, _ in enumerate(made.sequences)]
    sequences = [TokenSequence(tuple(range(9)), response) for response in responses]
    whole = replace(made, sequences=tuple(sequences))
    pair, brief = whole.pair().sequences, whole.brief().sequences
    assert tuple(len(s.response) for s in brief) == lengths
    for short, long in zip(brief, pair, strict=True):
        assert short.response == long.response[-len(short.response) :]
        assert short.prompt == long.prompt[-BRIEF_CONTEXT:]


def test_a_pair_whose_ends_are_the_same_stays_whole() -> None:
    whole = unit([0.1, 0.9, -0.4, 0.2])
    end = (1,) * (2 * BRIEF_TOKENS)
    alike = [replace(s, response=(n, *end)) for n, s in enumerate(whole.sequences)]
    unit_alike = replace(whole, sequences=tuple(alike))
    assert unit_alike.brief().sequences == unit_alike.pair().sequences
