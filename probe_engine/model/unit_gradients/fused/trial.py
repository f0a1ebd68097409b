"""May a model be given several sequences in one row? It is tried, for no list of names is whole.

States that run from token to token, convolutions, masks that the model makes itself, and positions that it
counts itself would carry one sequence into the next, or make it another one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import nn

from probe_engine.errors import memory_ran_out
from probe_engine.model.precision import coarsest, tolerance
from probe_engine.model.teacher_forcing import TokenSequence
from probe_engine.model.unit_gradients.fused.tape import Tape
from probe_engine.model.unit_gradients.objective import BRIEF_CONTEXT, BRIEF_TOKENS


class Record(Protocol):
    """A forward pass of some sequences."""

    def __call__(self, sequences: Sequence[TokenSequence], owners: Sequence[int], *, packed: bool) -> Tape:
        """In one row, or each in its own."""
        ...


def keeps_apart(model: nn.Module, record: Record, sequences: Sequence[TokenSequence]) -> bool:
    """Whether a response, behind another sequence and another response to its prompt, has the
    log-probabilities that it has at the row's beginning, and no gradient at any place of the others'.

    The second is exact, in any dtype: what is alike in all sequences hides nothing.

    Args:
        model: the one that is tried.
        record: a pass of it, with its graph.
        sequences: two or more; the ends of the longest two are tried.
    """
    first, second = sorted(sequences, key=len)[-2:]
    prompt = (second.prompt * 2)[-BRIEF_CONTEXT:]  # two tokens at least: of one alone nothing is shared
    responses = sorted((s.response[-BRIEF_TOKENS:] for s in (first, second)), key=len)
    last, other = (TokenSequence(prompt, response) for response in responses)
    try:
        with torch.enable_grad():
            together = record([last, other, last], [0, 1, 1], packed=True)
            if together.mixes(2):
                return False
    except Exception as error:
        # A model may refuse in any way what it was not made for: then it gets padded rows, as ever.
        if isinstance(error, RuntimeError) and memory_ran_out(error):
            raise
        return False
    there, here = together.tokens[0].log_probs, together.tokens[2].log_probs
    shift = (here - there).abs().mean()
    return bool(shift <= tolerance(coarsest(model, ())))
