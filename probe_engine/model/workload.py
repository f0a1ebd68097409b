"""What passes over units cost in floating-point operations, by method (method.md §5)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from probe_engine.model.teacher_forcing import TokenSequence, token_log_probs
from probe_engine.model.unit_gradients.fused.packing import Window, windows
from probe_engine.model.unit_gradients.objective import UnitObjective, chunks
from probe_engine.registry import ParameterRegistry

DOUBLE = 2
"""What it costs to differentiate a forward and a reverse pass once more, in such passes."""


@dataclass(frozen=True)
class TokenCost:
    """Floating-point operations for one token."""

    forward: float
    weights: float
    """Of the weight gradients alone; the reverse pass takes `forward` besides."""

    @classmethod
    def counted(
        cls, model: nn.Module, registry: ParameterRegistry, sequence: TokenSequence, temperature: float
    ) -> TokenCost:
        """By a forward pass over one sequence."""
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            token_log_probs(model, [sequence], temperature=temperature)
        return cls(counter.get_total_flops() / len(sequence), 2.0 * registry.numel)

    def gradients(self, method: str, tokens: PassTokens) -> float:
        """Of the first pass: X and Y of each unit."""
        reverse = self.forward + self.weights
        a_token = self.forward + (1 if method == "fused" else 2) * reverse
        return tokens.differentiated * a_token + tokens.scored_first * self.forward

    def contractions(self, method: str, tokens: PassTokens, directions: int) -> float:
        """Of the second pass, with so many directions."""
        again = self.gradients(method, PassTokens(tokens.differentiated, 0))
        if not method.startswith("alpha"):
            return again
        twice = DOUBLE * (2 * self.forward + self.weights)
        return again + tokens.differentiated * directions * twice


@dataclass(frozen=True)
class PassTokens:
    """Tokens of one pass over some units, padding included."""

    differentiated: int
    scored_first: int
    """Of units whose weights must be known before they are differentiated in parts."""

    @classmethod
    def of(cls, method: str, units: Sequence[UnitObjective], micro_batch: int) -> PassTokens:
        """As the method packs them."""
        if method == "fused":
            longest = max(len(s) for unit in units for s in unit.sequences)
            packed = windows(units, micro_batch * longest)
            sizes = [(_padded_rows(window), window.oversize) for window in packed]
        else:
            parts = [[u.sequences[part] for part in chunks(u, micro_batch)] for u in units]
            sizes = [(sum(map(_padded, cut)), len(cut) > 1) for cut in parts]
        return cls(sum(size for size, _ in sizes), sum(size for size, in_parts in sizes if in_parts))


def scored_tokens(method: str, units: Sequence[UnitObjective], micro_batch: int) -> int:
    """Tokens of one forward pass over each unit, padding included."""
    return sum(PassTokens.of(method, [unit], micro_batch).differentiated for unit in units)


def _padded_rows(window: Window) -> int:
    return sum(_padded([window.rows[row] for row in rows]) for rows in window.rectangles)


def _padded(sequences: Sequence[TokenSequence]) -> int:
    return len(sequences) * max(map(len, sequences))
