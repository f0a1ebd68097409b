"""The gradient-flow panel's figures of X, Y and P·Y, of a few units or of the batch."""

from __future__ import annotations

import msgspec

from probe_engine.report import GradientFlow
from probe_engine.vectors import Summary


def of_sums(panel: GradientFlow, x: Summary, y: Summary, py: Summary) -> GradientFlow:
    """The panel with what is known of ΣX, ΣY and ΣP·Y."""
    return msgspec.structs.replace(
        panel,
        x_non_none=x.non_none,
        x_non_zero=x.non_zero,
        y_non_none=y.non_none,
        y_non_zero=y.non_zero,
        sum_x_norm=x.norm,
        sum_y_norm=y.norm,
        sum_py_norm=py.norm,
    )
