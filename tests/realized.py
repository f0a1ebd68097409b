"""A row of the report's `realized`, for tests of what is said of it."""

from __future__ import annotations

import msgspec

from probe_engine.report import RealizedRow


def row(**changes: object) -> RealizedRow:
    """A healthy one but for the changes."""
    row = RealizedRow(
        step="preconditioned",
        pairing="same_batch",
        scale=1.0,
        predicted=0.1,
        delta_h=0.1,
        se=0.01,
        ci95=None,
        estimator="snis",
        h_before=1.0,
        h_after=1.1,
        ess=95.0,
        ess_fraction=0.95,
        khat=0.1,
        N=100,
        units=[],
    )
    return msgspec.structs.replace(row, **changes)
