"""δH₁ of the optimizer's own next step, from a split batch: E evaluates, U updates (method.md §6).

Δθ    the step that the optimizer makes of Ȳ of U                      [P]
x_n   X_n·Δθ, n ∈ E, with the learning rates of Δθ                     [B_E]
y_m   w·Y_m, m ∈ U, with w = ∂(X̄_E·Δθ)/∂Ȳ_U                           [B_U]
"""

from __future__ import annotations

from torch import Tensor

from probe_engine.estimators.split import split_estimate
from probe_engine.report import AdamwEstimate, AdamwParts


def adamw_estimate(
    x: Tensor, y: Tensor, parts: AdamwParts, *, clip: float, max_grad_norm: float | None
) -> AdamwEstimate:
    """δH₁ = mean x with SE² = var(x)/B_E + var(y)/B_U and the degrees of freedom of (12).

    Δθ is not linear in Ȳ, which stands under the root too: var(y) is its variance to first order.

    Args:
        x: [B_E].
        y: [B_U].
        parts: of X̄_E·Δθ.
        clip: what clipping multiplied Ȳ of U by.
        max_grad_norm: the trainer's, None where it is not known.

    Raises:
        ValueError: a side without units.
    """
    split = split_estimate(x, y, eta=1.0)
    return AdamwEstimate(
        delta_h1=split.delta_h1,
        se=split.se,
        se_conditional=split.se_conditional,
        var_e=split.var_e,
        var_u=split.var_u,
        B_E=split.B_E,
        B_U=split.B_U,
        df=split.df,
        ci95=split.ci95,
        prompts_needed=split.prompts_needed,
        parts=parts,
        clip=clip,
        max_grad_norm=max_grad_norm,
    )
