"""The realized change from responses sampled anew after the step: there is no weight to degenerate.

e, e⁺   a response's unbiased estimate of the entropy of the policy that sampled it, before and after   [N]
        λ·Σ_t h_t where λ is the same for all responses (h_t exact: the quieter), else −λS
"""

from __future__ import annotations

from torch import Tensor

from probe_engine.estimators.change import Change
from probe_engine.estimators.rescored import Samples


def resample(samples: Samples, before: Tensor, after: Tensor) -> Change:
    """ΔĤ = Σp·e⁺ − Σp·e, unbiased however long the step; its SE pairs the two by unit.

    Args:
        samples: shares of the old responses in the mean. The fresh ones stand in their places: as many of
            each prompt, in the same order.
        before: e [N], of the old ones.
        after: e⁺ [N], of the fresh ones.

    Raises:
        ValueError: not as many fresh responses as old ones.
    """
    if not len(before) == len(after) == samples.N:
        raise ValueError(f"expected {samples.N} old and fresh responses, got {len(before)} and {len(after)}")
    return Change(
        d_units=samples.B * samples.unit_sums(after.double() - before.double()),
        h_before=float((samples.p * before).sum()),
        n=samples.N,
        ess=float(samples.N),
        khat=None,
    )
