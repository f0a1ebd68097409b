"""Which row the verdict judges."""

from __future__ import annotations

import pytest

from probe_engine.report import RealizedRow
from probe_engine.stages.judge import headline
from probe_engine.stages.realized_rows import Realized

ROWS = [
    (step, pairing, estimator)
    for step in ("adamw", "preconditioned")
    for pairing in ("held_out", "same_batch")
    for estimator in ("resample", "per_decision", "matched", "snis", "psis")
]


def measured(*without: str) -> Realized:
    """All rows but those with one of these words."""
    kept = [row for row in ROWS if not set(without) & {*row, " ".join(row)}]
    return Realized(
        tuple(
            RealizedRow(
                step=step,
                pairing=pairing,
                scale=1.0,
                predicted=None,
                delta_h=None,
                se=None,
                ci95=None,
                estimator=estimator,
                h_before=None,
                h_after=None,
                ess=None,
                ess_fraction=None,
                khat=None,
                N=0,
                units=[],
            )
            for step, pairing, estimator in reversed(kept)
        )
    )


@pytest.mark.parametrize(
    ("without", "expected"),
    [
        ((), ("adamw", "held_out", "resample")),
        (("resample",), ("adamw", "held_out", "per_decision")),
        (("adamw held_out resample",), ("adamw", "held_out", "per_decision")),
        (("resample", "per_decision"), ("adamw", "held_out", "matched")),
        (("adamw",), ("preconditioned", "held_out", "resample")),
        (("adamw", "resample"), ("preconditioned", "held_out", "per_decision")),
        (("held_out",), None),
        (("resample", "per_decision", "matched"), None),
    ],
)
def test_the_judged_step_comes_before_the_better_measurement(without, expected) -> None:
    row = headline(measured(*without))
    assert (row and (row.step, row.pairing, row.estimator)) == expected
