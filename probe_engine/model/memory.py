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
SMALL_PART = 8
"""What sums of a second form of X may take of the memory budget: 1 / this. Of all weights they are what a run
can least spare, of an adapter nothing."""
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
    split: bool | None = None
    """Whether a unit takes several passes, where it is known; else whether an average one does."""
    room: int | None = None
    """Bytes that are free on a device with memory of its own."""


@dataclass(frozen=True, slots=True)
class Arrangement:
    """How often the units are gone through, so that what is held of their vectors fits."""

    kept: int = 0
    """Bytes of X_u (by either form) and P Y_u of every unit, for one pass; 0: they are let go, for two."""
    on_device: bool = True
    """Whether kept vectors are where the model is; else in the machine's memory."""
    apart: bool = False
    """Four passes: X of (2b) after that of (2), whose sums are let go."""

    @classmethod
    def within(
        cls,
        budget: int,
        vector: int,
        units: int,
        room: int | None,
        *,
        may_keep: bool,
        rao_blackwell: bool,
    ) -> Arrangement:
        """The quickest for which the budget will do.

        Args:
            budget: bytes, beside the sums of X of one form and of Y.
            vector: bytes of one over all parameters.
            units: how many there are.
            room: bytes free on a device with memory of its own, half of which is the passes'.
            may_keep: whether the method does without a second pass where vectors are kept. One that does not
                (`alpha`) is not there to save memory either: it takes both forms in the same passes.
            rao_blackwell: whether X of (2b) is computed as well.
        """
        kept = (2 + rao_blackwell) * units * vector
        if may_keep and kept <= budget:
            return cls(kept, on_device=room is None or 2 * kept <= room)
        return cls(apart=rao_blackwell and may_keep and SMALL_PART * 2 * vector > budget)

    @property
    def keeps(self) -> bool:
        """Whether vectors of units outlive their pass."""
        return self.kept > 0

    @property
    def passes(self) -> int:
        """Over all units."""
        return 1 if self.keeps else 4 if self.apart else 2


@dataclass(frozen=True, slots=True)
class Need:
    """Bytes, by what takes them."""

    arrangement: Arrangement
    weights: int
    optimizer: int
    lengths: int
    """Vectors over all trainable parameters at once, while the measurement goes on."""
    vector: int
    """One of them."""
    sequence: int
    """What one sequence of a micro-batch saves for the reverse pass."""
    sequences: int
    """In a micro-batch."""
    widened: int
    """Float32 copies of narrow weights, while the virtual step is measured."""

    @property
    def kept(self) -> int:
        """X_u (by either form) and P Y_u of every unit, where they fit into the memory budget."""
        return self.arrangement.kept

    @property
    def vectors(self) -> int:
        """Gradients and their sums."""
        return self.lengths * self.vector

    @property
    def fixed(self) -> int:
        """What only the dtype makes smaller, or the memory budget where two forms of X have their sums."""
        return self.weights + self.optimizer + self.vectors

    @property
    def total(self) -> int:
        """The peak: of the measurement, or of the virtual step after it."""
        kept = self.kept if self.arrangement.on_device else 0
        measuring = self.vectors + kept + self.sequences * self.sequence
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
    alpha = method.startswith("alpha")
    if sizes.sequence is None:
        sequence = sequence_bytes(sizes.config, sizes.extent, dtype, alpha=alpha)
    else:
        sequence = sizes.sequence * (ALPHA if alpha else 1)
    arrangement = Arrangement.within(
        budget, vector, units, sizes.room, may_keep=not alpha, rao_blackwell=rao_blackwell
    )
    sequences = min(micro_batch, max(1, sizes.extent.sequences))
    narrow = 0 if dtype == wide(dtype) else sizes.weights + sizes.held
    return Need(
        arrangement=arrangement,
        weights=sizes.weights * dtype.itemsize,
        optimizer=sizes.optimizer,
        lengths=_lengths(
            method,
            arrangement,
            rao_blackwell=rao_blackwell,
            split=sequences * units < sizes.extent.sequences if sizes.split is None else sizes.split,
        ),
        vector=vector,
        sequence=sequence,
        sequences=sequences,
        widened=narrow * wide(dtype).itemsize,
    )


def _lengths(method: str, arrangement: Arrangement, *, rao_blackwell: bool, split: bool) -> int:
    """Vectors over all trainable parameters beside θ, Adam's state and what is kept of each unit.

    Args:
        method: `--method`.
        arrangement: of the passes.
        rao_blackwell: whether X of (2b) is computed as well.
        split: whether a unit takes several passes.
    """
    of_unit = 3 if rao_blackwell else 2
    sums = 2 * (2 if arrangement.apart else of_unit)
    held = int(arrangement.keeps)  # P, beside the vectors that it multiplies
    if method.startswith("alpha"):
        return sums + ALPHA_LENGTHS
    vectors = (1 if split else 0) + (method != "fused")
    return sums + held + of_unit * vectors


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
