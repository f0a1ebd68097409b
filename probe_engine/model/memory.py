"""How much memory a probe will take, from sizes alone: nothing is loaded and nothing is run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from probe_engine.types import Extent
from probe_engine.vectors import wide

ALPHA = 3
"""Times what a reverse pass saves: `alpha` keeps that pass's own graph to differentiate it again."""
ALPHA_LENGTHS = 7
"""Of `alpha` besides: its gradient with that graph, and the products with a direction in float64."""
MOVED_LENGTHS = 3
"""During the virtual step: ΣY of both roles, and θ as it was."""


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
    together: int | None = None
    """Most units in one pass, where they are known; else as many as a micro-batch holds on average."""
    split: bool | None = None
    """Whether a unit takes several passes; likewise."""


@dataclass(frozen=True, slots=True)
class Need:
    """Bytes, by what takes them."""

    weights: int
    optimizer: int
    lengths: int
    """Vectors over all trainable parameters at once, while the measurement goes on."""
    vector: int
    """One of them."""
    kept: int
    """X_u (by either form) and P Y_u of every unit, where they fit into the memory budget."""
    sequence: int
    """What one sequence of a micro-batch saves for the reverse pass."""
    sequences: int
    """In a micro-batch."""
    widened: int
    """Float32 copies of narrow weights, while the virtual step is measured."""

    @property
    def vectors(self) -> int:
        """Gradients and their sums."""
        return self.lengths * self.vector

    @property
    def fixed(self) -> int:
        """What no option but the dtype makes smaller."""
        return self.weights + self.optimizer + self.vectors

    @property
    def total(self) -> int:
        """The peak: of the measurement, or of the virtual step after it."""
        measuring = self.vectors + self.kept + self.sequences * self.sequence
        return self.weights + self.optimizer + max(measuring, MOVED_LENGTHS * self.vector + self.widened)


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
    sequences = min(micro_batch, max(1, sizes.extent.sequences))
    together = sequences * units / max(1, sizes.extent.sequences)
    narrow = 0 if dtype == wide(dtype) else sizes.weights + sizes.held
    return Need(
        weights=sizes.weights * dtype.itemsize,
        optimizer=sizes.optimizer,
        lengths=_lengths(
            method,
            max(1, int(together)) if sizes.together is None else sizes.together,
            rao_blackwell=rao_blackwell,
            keeps=keeps,
            split=together < 1 if sizes.split is None else sizes.split,
        ),
        vector=vector,
        kept=kept if keeps else 0,
        sequence=sequence,
        sequences=sequences,
        widened=narrow * wide(dtype).itemsize,
    )


def _lengths(method: str, together: int, *, rao_blackwell: bool, keeps: bool, split: bool) -> int:
    """Vectors over all trainable parameters beside θ, Adam's state and what is kept of each unit.

    Args:
        method: `--method`.
        together: most units in one pass.
        rao_blackwell: whether X of (2b) is computed as well.
        keeps: whether X_u and P Y_u of every unit are kept.
        split: whether a unit takes several passes.
    """
    of_unit = 3 if rao_blackwell else 2
    sums = 2 * of_unit
    held = int(keeps)  # P, beside the vectors that it multiplies
    if method.startswith("alpha"):
        return sums + ALPHA_LENGTHS
    if method != "fused":
        return sums + held + of_unit * (2 if split else 1)
    # P Y of each unit of a pass waits until X of (2b) comes.
    waiting = together if rao_blackwell and not keeps else 0
    return sums + held + max(waiting, of_unit if split else 0)


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
