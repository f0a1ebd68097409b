"""What passes over units cost, by method (method.md §5): counted on one sequence, multiplied out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from probe_engine.model.teacher_forcing import (
    Layout,
    TokenSequence,
    device_of,
    response_log_probs,
    response_logits,
)
from probe_engine.model.unit_gradients.fused.packing import Window, packed
from probe_engine.model.unit_gradients.objective import UnitObjective, chunks
from probe_engine.registry import ParameterRegistry, wide

DOUBLE = 2
"""What it costs to differentiate a forward and a reverse pass once more, in such passes."""
LOGITS = 2
"""Float32 copies of the logits in a reverse pass by autograd, beside what it saved: their gradient, and how
it is put together from its chunks. `fused` writes the gradient into its place."""


@dataclass(frozen=True)
class Counted:
    """One forward pass over one sequence."""

    tokens: int
    flops: int
    """In matrix products."""
    saved: int
    """Bytes that autograd keeps, parameters apart."""
    logits: int
    """Bytes, in float32 or wider."""

    def nbytes(self, method: str) -> int:
        """What a reverse pass takes for the sequence."""
        return self.saved + (1 if method == "fused" else LOGITS) * self.logits


def counted(model: nn.Module, sequence: TokenSequence, temperature: float) -> Counted:
    """Runs the sequence through the model, with a graph."""
    own = {t.untyped_storage().data_ptr() for t in (*model.parameters(), *model.buffers())}
    kept: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        # A node that holds its own output with its graph is a cycle that nothing frees, the model in it.
        kept[tensor.untyped_storage().data_ptr()] = tensor = tensor.detach()
        return tensor

    layout = Layout.of([sequence], device=device_of(model))
    hooks = torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor)
    with hooks, FlopCounterMode(display=False) as counter:
        logits = response_logits(model, layout)
        response_log_probs(logits, layout, temperature)
    saved = sum(t.untyped_storage().nbytes() for place, t in kept.items() if place not in own)
    return Counted(
        len(sequence), counter.get_total_flops(), saved, logits.numel() * wide(logits.dtype).itemsize
    )


@dataclass(frozen=True)
class TokenCost:
    """Floating-point operations for one token, in matrix products."""

    forward: float
    reverse: float

    @classmethod
    def of(cls, one: Counted, registry: ParameterRegistry, *, checkpointing: bool) -> TokenCost:
        """The reverse pass goes back through every product, and makes one of δ and x for each parameter."""
        forward = one.flops / one.tokens
        return cls(forward, forward * (2 if checkpointing else 1) + 2.0 * registry.numel)

    def gradients(self, method: str, tokens: PassTokens, *, rao_blackwell: bool = False) -> float:
        """Of the first pass: X and Y of each unit, and X of (2b)."""
        a_token = self.forward + ((1 if method == "fused" else 2) + rao_blackwell) * self.reverse
        return tokens.differentiated * a_token + tokens.scored_first * self.forward

    def contractions(
        self, method: str, tokens: PassTokens, directions: int, *, rao_blackwell: bool = False
    ) -> float:
        """Of the second pass, with so many directions."""
        again = self.gradients(method, PassTokens(tokens.differentiated, 0), rao_blackwell=rao_blackwell)
        if not method.startswith("alpha"):
            return again
        return again + tokens.differentiated * directions * DOUBLE * (self.forward + self.reverse)


@dataclass(frozen=True)
class PassTokens:
    """Tokens of one pass over some units, padding included."""

    differentiated: int
    scored_first: int
    """Of units whose weights must be known before they are differentiated in parts."""

    @classmethod
    def of(
        cls, method: str, units: Sequence[UnitObjective], micro_batch: int, *, packs: bool = False
    ) -> PassTokens:
        """As the method cuts them, `fused` without padding where it `packs`."""
        if method == "fused":
            cut = packed(units, micro_batch)
            sizes = [(_given(window, packs=packs and window.ragged), window.oversize) for window in cut]
        else:
            parts = [[u.sequences[part] for part in chunks(u, micro_batch)] for u in units]
            sizes = [(sum(map(_padded, each)), len(each) > 1) for each in parts]
        return cls(sum(size for size, _ in sizes), sum(size for size, in_parts in sizes if in_parts))


def _given(window: Window, *, packs: bool) -> int:
    return sum(bundle.tokens(window.rows) for bundle in window.bundles(packed=packs))


def _padded(sequences: Sequence[TokenSequence]) -> int:
    return len(sequences) * max(map(len, sequences))
