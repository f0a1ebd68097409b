"""How much memory a probe will take, from sizes alone: nothing is loaded and nothing is run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from probe_engine.registry import wide
from probe_engine.types import Extent

VECTORS = 13
"""Parameter-length vectors at once: ΣX, ΣY and P ΣY of both roles, X, Y, P·Y of one unit, and of the
optimizer's own step θ⁺, Ȳ, Δθ and its sensitivity to Ȳ."""
RAO_BLACKWELL_VECTORS = 6
"""Of X by (2b) besides: its sum of both roles and P times it, one unit's, and the own step's sensitivity."""
ALPHA = 3
"""Times what a reverse pass saves: `alpha` keeps that pass's own graph to differentiate it again."""


@dataclass(frozen=True)
class Sizes:
    """What the need for memory depends on, apart from options."""

    weights: int
    """Numbers that are still to be loaded."""
    held: int
    """Numbers of a model that is in memory already."""
    trainable: int
    """Numbers in the trainable parameters."""
    optimizer: int
    """Bytes of the optimizer's state that are still to be read."""
    config: Any
    """The model's transformers configuration."""
    extent: Extent
    units: int | None = None
    """Where they are known; else there are as many as the sequences allow."""
    sequence: int | None = None
    """What a sequence of a micro-batch takes, where it was counted; else it is estimated."""


@dataclass(frozen=True, slots=True)
class Need:
    """Bytes, by what takes them."""

    weights: int
    optimizer: int
    vectors: int
    """Gradients and their sums."""
    kept: int
    """X_u (by either form) and P Y_u of every unit, where they fit into the memory budget."""
    sequence: int
    """What one sequence of a micro-batch saves for the reverse pass."""
    sequences: int
    """In a micro-batch."""
    widened: int
    """Float32 copies of narrow weights, while the virtual step is measured."""

    @property
    def fixed(self) -> int:
        """What no option but the dtype makes smaller."""
        return self.weights + self.optimizer + self.vectors

    @property
    def total(self) -> int:
        """The peak: of the measurement, or of the virtual step after it."""
        return self.fixed + max(self.kept + self.sequences * self.sequence, self.widened)


def need(
    sizes: Sizes,
    dtype: torch.dtype,
    *,
    micro_batch: int,
    budget: int,
    method: str,
    rao_blackwell: bool = False,
) -> Need:
    """The forecast for a run.

    Args:
        sizes: of the checkpoint and the rollouts.
        dtype: of the model.
        micro_batch: sequences in one forward pass.
        budget: bytes for kept unit gradients.
        method: `--method`.
        rao_blackwell: whether X of (2b) is computed as well.
    """
    vector = sizes.trainable * wide(dtype).itemsize
    # A unit has two responses or more.
    units = sizes.extent.sequences // 2 if sizes.units is None else sizes.units
    kept = (3 if rao_blackwell else 2) * units * vector
    alpha = method.startswith("alpha")
    if sizes.sequence is None:
        sequence = sequence_bytes(sizes.config, sizes.extent, dtype, alpha=alpha)
    else:
        sequence = sizes.sequence * (ALPHA if alpha else 1)
    keeps = not alpha and kept <= budget
    waiting = 0
    if rao_blackwell:
        waiting = RAO_BLACKWELL_VECTORS
        if method == "fused" and not keeps:
            # P Y of each unit of a micro-batch, until X of (2b) comes.
            waiting += max(1, micro_batch * units // max(1, sizes.extent.sequences))
    narrow = 0 if dtype == wide(dtype) else sizes.weights + sizes.held
    return Need(
        weights=sizes.weights * dtype.itemsize,
        optimizer=sizes.optimizer,
        vectors=(VECTORS + waiting) * vector,
        kept=kept if keeps else 0,
        sequence=sequence,
        sequences=min(micro_batch, max(1, sizes.extent.sequences)),
        widened=narrow * wide(dtype).itemsize,
    )


def sequence_bytes(config: Any, extent: Extent, dtype: torch.dtype, *, alpha: bool = False) -> int:
    """What one sequence saves for the reverse pass, roughly (within a factor of 2 of what was counted on
    dense and mixture-of-experts decoders; a model with other parts may take more).

    A decoder layer saves about 10 vectors of the hidden size and 4 of the feed-forward's for each token;
    attention that is computed explicitly (eager, and the math backend of `alpha`) its table of weights
    besides. Logits of the response positions are there in float32, with their gradient.

    Args:
        config: of a transformers model.
        extent: tokens of a prompt and a response.
        dtype: of the model.
        alpha: whether the pass is differentiated twice.
    """
    text = config.get_text_config()
    hidden = _size(text, "hidden_size", 0)
    inner = _size(text, "intermediate_size", 0) or _size(text, "ffn_dim", 0) or 4 * hidden
    layers = _size(text, "num_hidden_layers", 1)
    experts = _size(text, "num_experts_per_tok", 1)
    tokens = extent.prompt + extent.response
    layer = tokens * (10 * hidden + 4 * inner * experts)
    if alpha or getattr(text, "_attn_implementation", None) == "eager":
        layer += _size(text, "num_attention_heads", 1) * tokens**2
    logits = extent.response * _size(text, "vocab_size", 0)
    saved = layers * layer * dtype.itemsize + 3 * logits * wide(dtype).itemsize
    return saved * (ALPHA if alpha else 1)


def _size(config: Any, name: str, default: int) -> int:
    """A number of the configuration; some write one a layer."""
    value = getattr(config, name, None)
    if isinstance(value, list) and value:
        value = value[0]
    return value if isinstance(value, int) and value > 0 else default
