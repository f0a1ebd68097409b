"""A measured change of entropy: a share for each unit, and everything that follows from the shares."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from probe_engine.estimators.rescored import Samples
from probe_engine.estimators.weights import ess


@dataclass(frozen=True, eq=False)
class Change:
    """ΔĤ with its error and its weights' diagnostics."""

    d_units: Tensor
    """[B], each unit's share: their mean is ΔĤ."""
    h_before: float
    """Ĥ."""
    n: int
    """N, responses."""
    ess: float
    """Effective sample size, responses."""
    khat: float | None
    """Pareto k̂ of the raw weights; None where no tail can be fitted, or nothing is weighted."""

    @classmethod
    def of(cls, samples: Samples, d: Tensor, before: Tensor) -> Change:
        """Of each re-scored response's own share.

        Args:
            samples: shares in the mean, and weights.
            d: [N], unbiased for H⁺ − H.
            before: [N], unbiased for H.
        """
        return cls(
            d_units=samples.B * samples.unit_sums(d),
            h_before=float((samples.p * before).sum()),
            n=samples.N,
            ess=ess(samples.log_w, samples.p),
            khat=samples.khat,
        )

    @property
    def delta_h(self) -> float:
        """ΔĤ."""
        return float(self.d_units.mean())

    @property
    def se(self) -> float | None:
        """Over units; None at B = 1."""
        B = len(self.d_units)
        return math.sqrt(float(self.d_units.var()) / B) if B > 1 else None

    @property
    def h_after(self) -> float:
        """Ĥ⁺ = Ĥ + ΔĤ."""
        return self.h_before + self.delta_h

    @property
    def ess_fraction(self) -> float:
        """ESS/N."""
        return self.ess / self.n
