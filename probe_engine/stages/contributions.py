"""s_n, t_m and r_n of units, from their dot products with the sums."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from probe_engine.estimators.ustatistics import row_means
from probe_engine.events import Contributions
from probe_engine.spec import XForm
from probe_engine.types import Role, UnitScalars

SUFFIXES: Mapping[XForm, str] = {"score": "", "rao_blackwell": "_rb"}
"""Of the report's keys."""


@dataclass(frozen=True)
class RowDots:
    """By unit id, without η."""

    s: Mapping[str, float]
    """X_n·μ_Y for E (11)"""
    t: Mapping[str, float]
    """μ_X·P Y_m for U (12)"""
    r: Mapping[str, float]
    """row means (7); empty where there is no pair"""


def row_dots(scalars: Sequence[UnitScalars], sizes: Mapping[Role, int]) -> RowDots:
    """s, t and r of these units.

    Args:
        scalars: of all units, or of some.
        sizes: units of each role behind the sums in `scalars`.
    """
    n_e, n_u = sizes["E"], sizes["U"]
    r: dict[str, float] = {}
    if n_e + n_u >= 2 and scalars:
        diagonal, x_dots, y_dots = dots_with_sums(scalars)
        means = row_means(diagonal, x_dots, y_dots, n_e + n_u)
        r = dict(zip((u.id for u in scalars), means.tolist(), strict=True))
    return RowDots(
        s={u.id: u.x_dot_sum_py["U"] / n_u for u in scalars if u.role == "E" and n_u},
        t={u.id: u.py_dot_sum_x["E"] / n_e for u in scalars if u.role == "U" and n_e},
        r=r,
    )


def dots_with_sums(scalars: Sequence[UnitScalars]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """X_n·P Y_n, X_n·P ΣY and P Y_n·ΣX over both roles, each float64 [B]."""
    columns = (
        [u.x_dot_py for u in scalars],
        [sum(u.x_dot_sum_py.values()) for u in scalars],
        [sum(u.py_dot_sum_x.values()) for u in scalars],
    )
    diagonal, x_dots, y_dots = (torch.tensor(c, dtype=torch.float64) for c in columns)
    return diagonal, x_dots, y_dots


def so_far(
    scalars: Mapping[XForm, Sequence[UnitScalars]], sizes: Mapping[Role, int], eta: float
) -> Contributions:
    """The contributions as an event, for a screen that watches them grow."""
    ids = [u.id for u in scalars["score"]]
    dots = {form: row_dots(of_units, sizes) for form, of_units in scalars.items()}

    def contributions(of: Mapping[str, float], factor: float) -> list[float | None]:
        return [factor * of[i] if i in of else None for i in ids]

    score, rao_blackwell = dots["score"], dots.get("rao_blackwell")
    return Contributions(
        ids=ids,
        s=contributions(score.s, eta),
        r=contributions(score.r, -eta),
        s_rb=[] if rao_blackwell is None else contributions(rao_blackwell.s, eta),
        r_rb=[] if rao_blackwell is None else contributions(rao_blackwell.r, -eta),
    )
