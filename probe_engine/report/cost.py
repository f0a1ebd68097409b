"""What a run was expected to take, and what it took."""

from __future__ import annotations

import msgspec

from probe_engine.report.findings import Number


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """What a method takes from the measurement to the verdict. No clock has a part in it."""

    passes: int
    """Passes over all units; 2 where their vectors are not kept."""
    tokens: int
    """Prompt and response tokens of these passes and of all scorings after a step."""
    flops: Number
    """In matrix products, padding included."""
    memory: int
    """Bytes at the peak, beside the loaded model and its optimizer's state."""
    parameter_lengths: int | None = None
    """Vectors over all trainable parameters among them: the sums of X and Y over each role, what is kept of
    each unit, and what a unit needs while it is measured. Null in reports of versions that did not count."""


class Observed(msgspec.Struct, frozen=True, kw_only=True):
    """What a clock and the allocator say: other numbers in every run."""

    flops_per_second: Number
    """Of the forward and reverse passes of the first units, and of what is made of their X and Y."""
    scoring_flops_per_second: Number
    """Of the first of those forward passes."""
    expected_seconds: dict[str, Number]
    """By method, at these rates: the forecast of `seconds`."""
    seconds: Number = None
    """From the measurement to the verdict; null before that."""
    memory: int | None = None
    """Bytes at the peak above those held before the gradient-flow check; null where nothing tells."""


class Forecast(msgspec.Struct, frozen=True, kw_only=True):
    """What was foreseen once the first units were measured, and what then happened."""

    method: str
    """With which the run goes on."""
    predicted: dict[str, Cost]
    """By method."""
    measured: Observed
