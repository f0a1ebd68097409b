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
from probe_engine.model.unit_gradients.objective import BRIEF_TOKENS


class Record(Protocol):
    """A forward pass of some sequences."""

    def __call__(self, sequences: Sequence[TokenSequence], *, packed: bool) -> Tape:
        """In one row, or each in its own."""
        ...


def keeps_apart(model: nn.Module, record: Record, sequences: Sequence[TokenSequence]) -> bool:
    """Whether a sequence behind another one has the log-probabilities that it has alone, and no gradient at
    any place of the other's.

    The second is exact, in any dtype: what is alike in both sequences hides nothing.

    Args:
        model: the one that is tried.
        record: a pass of it, with its graph where gradients are on.
        sequences: two or more; the ends of the longest two are tried.
    """
    first, second = sorted(sequences, key=len)[-2:]
    pair = [s.end(BRIEF_TOKENS, BRIEF_TOKENS) for s in (first, second)]
    try:
        with torch.no_grad():
            (alone,) = record(pair[1:], packed=False).tokens
        with torch.enable_grad():
            together = record(pair, packed=True)
            if together.mixes(1):
                return False
    except Exception as error:
        # A model may refuse in any way what it was not made for: then it gets padded rows, as ever.
        if isinstance(error, RuntimeError) and memory_ran_out(error):
            raise
        return False
    shift = (together.tokens[1].log_probs - alone.log_probs).abs().mean()
    return bool(shift <= tolerance(coarsest(model, ())))
