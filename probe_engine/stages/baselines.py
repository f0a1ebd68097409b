"""The zero-cost baselines beside the probe: each unit's part of them, and whether they rank units alike."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import torch
from torch import Tensor

from probe_engine.estimators.baselines import covariance, discriminant
from probe_engine.estimators.ranks import spearman
from probe_engine.estimators.token_statistics import TokenStatistics
from probe_engine.report import Baselines, RankCorrelation, UnitRow
from probe_engine.stages.contributions import RowDots
from probe_engine.stages.measured import Measured
from probe_engine.types import UnitScalars


@dataclass(frozen=True)
class BaselineParts:
    """What each unit's tokens add to the baselines of the batch, each float64 [B] (method.md §8)."""

    covariance: Tensor
    discriminant: Tensor

    @classmethod
    def of(cls, measured: Measured) -> BaselineParts:
        """Of all response tokens, each counted once."""
        responses = [r for unit in measured.tokens for r in unit]
        tokens = TokenStatistics.joined(responses)
        advantages = torch.cat([o.advantages for o in measured.objectives])
        by_token = advantages.repeat_interleave(torch.tensor([len(r) for r in responses]))
        lengths = [sum(map(len, unit)) for unit in measured.tokens]
        of_tokens = covariance(tokens.log_probs, by_token), discriminant(tokens, by_token)
        return cls(*(torch.stack([run.sum() for run in part.split(lengths)]) for part in of_tokens))

    def in_rows(self, rows: Sequence[UnitRow]) -> tuple[UnitRow, ...]:
        """The units' rows with their parts."""
        parts = zip(rows, self.covariance.tolist(), self.discriminant.tolist(), strict=True)
        return tuple(msgspec.structs.replace(row, covariance=c, discriminant=d) for row, c, d in parts)

    def beside(self, units: Sequence[UnitScalars], dots: RowDots) -> Baselines:
        """The totals, and how the parts rank these units beside what the probe measured of them.

        Args:
            units: in the order of the parts.
            dots: of the same form of X.
        """
        # Without η, which moves no rank: a learning rate of 0 leaves an order to compare.
        r = torch.tensor([-dots.r.get(unit.id, math.nan) for unit in units], dtype=torch.float64)
        diagonal = torch.tensor([unit.x_dot_py for unit in units], dtype=torch.float64)

        def ranked(part: Tensor) -> RankCorrelation:
            return RankCorrelation(contribution_r=spearman(part, r), x_dot_py=spearman(part, diagonal))

        return Baselines(
            covariance=float(self.covariance.sum()),
            discriminant=float(self.discriminant.sum()),
            covariance_ranks=ranked(self.covariance),
            discriminant_ranks=ranked(self.discriminant),
        )
