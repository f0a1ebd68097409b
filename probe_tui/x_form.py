"""Units by either form of the entropy gradient: what is shown of both the same way."""

from __future__ import annotations

import msgspec

from probe_engine.report import Histogram, Histograms, Influence, UnitRow
from probe_engine.spec import XForm


def suffixed(field: str, form: XForm) -> str:
    """The report's key for a number by this form, given that by the score form."""
    return f"{field}_rb" if form == "rao_blackwell" else field


OF_X = ("x_norm", "x_dot_py", "s", "t", "r", "contribution_s", "contribution_r")
"""Fields of a unit that are by a form of X."""


def by_form(unit: UnitRow, form: XForm) -> UnitRow:
    """The unit with the numbers of this form in the place of the score form's."""
    if form == "score":
        return unit
    return msgspec.structs.replace(unit, **{field: getattr(unit, suffixed(field, form)) for field in OF_X})


def histograms_by(held: Histograms, form: XForm) -> tuple[Histogram | None, Histogram | None]:
    """Of +η·s_n and −η·r_n."""
    return (held.s, held.r) if form == "score" else (held.s_rb, held.r_rb)


def influence_by(held: Influence | None, form: XForm) -> Influence | None:
    """The influence matrix."""
    if held is None or form == "score" or held.K_rb is None:
        return held
    return Influence(ids=held.ids, K=held.K_rb)
