"""The derivative test: does entropy change along a direction as autograd's gradient says? method.md (19b).

d(ε)   each unit's share of the matched change (15) after a step ε·v        [B]
X_n·v  what autograd's gradient says of it, per ε                           [B]

The first-order term of Σd on these very samples is ε·Σ X_n·v, exactly, so that no sampling noise separates
the two: their ratio is 1 unless the gradient is not the derivative of what the model computes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from probe_engine.estimators.importance import matched
from probe_engine.estimators.rescored import Samples

RMS_LOG_WEIGHT = 0.02
"""Long enough a step that float32 resolves it, short enough that its third order stays below TOLERANCE."""
TOLERANCE = 0.003
"""Along X̄ a ratio farther from 1 is no rounding: the prediction ‖X̄‖² is a sum of squares."""
TOLERANCE_STEP = 0.01
"""Along Δθ, where the prediction X̄·Δθ is a sum of terms that cancel."""


def tolerance_along_step(se: float | None) -> float:
    """Where the units' shares cancel, a little of one of them is much of the sum; the SE shows it."""
    return max(TOLERANCE_STEP, 2 * (se or 0))


@dataclass(frozen=True)
class Factor:
    """Measured over predicted change."""

    value: float
    se: float | None
    """Over units; None at B = 1."""


def central_difference(forward: Samples, backward: Samples) -> Tensor:
    """½( d(+ε) − d(−ε) ), float64 [B]: orders 2, 4, … cancel."""
    return (matched(forward).d_units - matched(backward).d_units) / 2


def factor(measured: Tensor, predicted: Tensor) -> Factor:
    """Σ measured / Σ predicted; SE = sd(measured − ratio·predicted)/(√B·|mean predicted|).

    Args:
        measured: [B], `central_difference`.
        predicted: [B], ε·X_n·v.

    Returns:
        nan where nothing is predicted.
    """
    B, mean = len(predicted), float(predicted.mean())
    if mean == 0:
        return Factor(math.nan, None)
    value = float(measured.mean()) / mean
    residual = measured - value * predicted
    return Factor(value, float(residual.std()) / (math.sqrt(B) * abs(mean)) if B > 1 else None)


def extrapolated(whole: float, half: float) -> float:
    """The ratio at ε → 0 from those at ε and ε/2: (4·half − whole)/3, for their error goes with ε²."""
    return (4 * half - whole) / 3


def settled(whole: float, half: float) -> bool:
    """Whether halving ε changes the ratio by no more than TOLERANCE or a tenth of its departure from 1.

    False where rounding or jumps of the forward (top-k routing) drown the derivative.
    """
    departure = abs(extrapolated(whole, half) - 1)
    return abs(whole - half) <= max(TOLERANCE, departure / 10)


def confirmed(value: float, closer: float) -> bool:
    """Whether a departure from 1 is there at a far smaller ε too, neither half of it nor twice as much.

    A stop-gradient's factor stays as ε shrinks; kinks of the forward (ReLU) in reach of ±ε become fewer, and
    a jump right at θ (top-k routing at a tie) outgrows the step.
    """
    return 1 / 2 < abs(closer - 1) / abs(value - 1) < 2
