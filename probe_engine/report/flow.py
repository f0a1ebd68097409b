"""Does gradient flow, how is it computed, and is the batch the policy's own?"""

from __future__ import annotations

import msgspec

from probe_engine.report.findings import Number


class IdMatch(msgspec.Struct, frozen=True, kw_only=True):
    """Do two sets of parameter objects agree (by `id`)?"""

    matched: int
    missing: int
    """In the registry (or buffer), not in the live model."""
    stray: int
    """In the live model, not in the registry (or buffer)."""

    @classmethod
    def count(cls, mine: set[int], live: set[int]) -> IdMatch:
        """Compares two sets of `id(p)`."""
        return cls(matched=len(mine & live), missing=len(mine - live), stray=len(live - mine))


class DerivativeTest(msgspec.Struct, frozen=True, kw_only=True):
    """Autograd's gradient against a central difference of what the model computes, method.md (19b)."""

    along_x: Number
    """Measured over predicted change of entropy along X̄: 1 where autograd's gradient is the derivative.
    Null where halving the step changes it: rounding or jumps of the forward drown it."""
    along_step: Number
    """The same along Δθ = PȲ: the factor that δH₁ is off by. Null as above, and where Ȳ is 0."""
    along_step_se: Number
    """Over the units tried."""
    units: int
    """Units tried."""


class GradientFlow(msgspec.Struct, frozen=True, kw_only=True):
    grad_context: str
    logits_grad_fn: str | None = None
    s_grad_fn: str | None = None
    dl_ds_nonzero: bool = False
    reaches_embeddings: bool = False
    registry: int
    x_non_none: int = 0
    x_non_zero: int = 0
    y_non_none: int = 0
    y_non_zero: int = 0
    matched: int = 0
    missing: int = 0
    stray: int = 0
    fallbacks: int = 0
    sum_x_norm: Number = None
    sum_y_norm: Number = None
    sum_py_norm: Number = None
    stale_ratio: Number = None
    """‖PȲ‖/‖P⁺Ȳ‖ of method.md (4b)."""
    derivative: DerivativeTest | None = None
    mapping_correlation: Number = None
    """How sure index → name of the optimizer state is: the median, over parameters, of the rank
    correlation of exp_avg_sq with the fresh gradient²."""


class OnPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """Are the samples this policy's? method.md (20)."""

    tokens: int
    """Response tokens looked at."""
    z: Number
    """Above 0: less likely than the policy's own samples."""
    temperature: Number
    """At which these samples are likeliest, within [1/3, 4] times `--policy-temperature`."""
    temperature_se: Number
    excluded_mass: Number
    """Share of the policy's probability that lies beyond every sample: about 0 for its own samples, up to
    1 − q under nucleus sampling with top-p = q."""
    excluded_mass_se: Number
    top_p: Number
    """The smallest nucleus that holds every sample."""


class MethodInfo(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    x_estimator: str
    passes: int
    vectors_kept: bool
    vectors_on: str | None = None
    """The device that holds them; null where none are kept."""
    fallback_parameters: int
    attention: str
    checkpointed_layers: int = 0
    """Layers that run again in the reverse pass, with `--checkpointing`."""
    packed: bool = False
    """Whether sequences shared rows, so that nothing was padded and no prompt repeated for each response."""
