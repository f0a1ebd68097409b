"""The predicted change of entropy, by every estimator."""

from __future__ import annotations

import msgspec

from probe_engine.report.findings import Number
from probe_engine.spec import XForm


class UStatistic(msgspec.Struct, frozen=True, kw_only=True):
    u_cross: Number
    delta_h1: Number
    se_plugin: Number
    se_jackknife: Number
    ci95: tuple[Number, Number] | None
    zeta1: Number
    zeta2: Number
    B: int
    prompts_needed: int | None


class VStatistic(msgspec.Struct, frozen=True, kw_only=True):
    delta_h1: Number
    se: Number
    ci95: tuple[Number, Number] | None


class SplitEstimate(msgspec.Struct, frozen=True, kw_only=True):
    delta_h1: Number
    se: Number
    se_conditional: Number
    var_e: Number
    var_u: Number
    mean_s: Number
    sum_s: Number
    sum_s2: Number
    B_E: int
    B_U: int
    df: Number
    """Welch–Satterthwaite degrees of freedom."""
    ci95: tuple[Number, Number] | None
    prompts_needed: int | None


class AdamwParts(msgspec.Struct, frozen=True, kw_only=True):
    """X̄·Δθ by what the optimizer's step is made of, method.md §6: they add up to it."""

    gradient: Number
    """This batch's policy gradient, as if nothing were clipped."""
    clipping: Number
    """What clipping takes from it."""
    momentum: Number
    """Gradients of earlier steps."""
    weight_decay: Number


class AdamwEstimate(msgspec.Struct, frozen=True, kw_only=True):
    """δH₁ of the optimizer's own next step on U, over E: X̄_E·Δθ_U."""

    delta_h1: Number
    se: Number
    se_conditional: Number
    """Given U."""
    var_e: Number
    var_u: Number
    B_E: int
    B_U: int
    df: Number
    """Welch–Satterthwaite degrees of freedom."""
    ci95: tuple[Number, Number] | None
    prompts_needed: int | None
    parts: AdamwParts
    clip: Number
    """What clipping multiplies Ȳ of U by, at most 1."""
    max_grad_norm: Number
    """The trainer's; null where it is not known, and then nothing is clipped."""


class RankCorrelation(msgspec.Struct, frozen=True, kw_only=True):
    """Spearman's ρ of the units' parts of a baseline with what the probe measured of the units, by the
    headline's form of X; null below three units, or where a side is the same for all of them."""

    contribution_r: Number
    """With −η·r_n, what the unit adds to δH₁."""
    x_dot_py: Number
    """With X·P Y, what the unit does to itself."""


class Baselines(msgspec.Struct, frozen=True, kw_only=True):
    covariance: Number
    discriminant: Number
    covariance_ranks: RankCorrelation | None = None
    """Null in reports of versions that did not rank."""
    discriminant_ranks: RankCorrelation | None = None


class XEstimates(msgspec.Struct, frozen=True, kw_only=True):
    """The estimates by one form of the entropy gradient X."""

    u_statistic: UStatistic | None = None
    split: SplitEstimate | None = None
    adamw: AdamwEstimate | None = None

    @property
    def se(self) -> Number:
        """Of δH₁ of the optimizer's own step, else of the split estimate, else of the U-statistic."""
        for estimate in (self.adamw, self.split):
            if estimate is not None and estimate.se is not None:
                return estimate.se
        return None if self.u_statistic is None else self.u_statistic.se_jackknife


class Estimates(msgspec.Struct, frozen=True, kw_only=True):
    u_statistic: UStatistic | None = None
    v_statistic: VStatistic | None = None
    split: SplitEstimate | None = None
    adamw: AdamwEstimate | None = None
    """Null where the optimizer's next step is not known (OPT012), or nothing was held out."""
    rao_blackwell: XEstimates | None = None
    """The same with X of (2b); null where it was not asked for, or λ differs between responses (STAT009)."""
    x_estimator: XForm = "score"
    """Whose δH₁ is the headline: `score`, the estimates above, or `rao_blackwell`."""
    baselines: Baselines | None = None

    def by(self, form: XForm) -> XEstimates:
        """The estimates by this form of X; empty where there are none."""
        if form == "rao_blackwell":
            return self.rao_blackwell or XEstimates()
        return XEstimates(u_statistic=self.u_statistic, split=self.split, adamw=self.adamw)

    @property
    def headline(self) -> XEstimates:
        """The estimates by the form whose δH₁ is the headline."""
        return self.by(self.x_estimator)
