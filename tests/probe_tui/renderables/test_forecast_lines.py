"""The forecast as text."""

from __future__ import annotations

import msgspec

from probe_engine.report import Cost, Forecast, Observed
from probe_tui.renderables.forecast import forecast_line, forecast_table, outcome_line

COST = Cost(passes=1, tokens=32_426, flops=8.3e9, memory=6 * 2**20)
BEFORE = Observed(
    flops_per_second=1e9, scoring_flops_per_second=2e9, expected_seconds={"fused": 1.5, "alpha": None}
)


def forecast(measured: Observed = BEFORE) -> Forecast:
    twice = Cost(passes=2, tokens=40_000, flops=None, memory=4 * 2**30)
    return Forecast(method="fused", predicted={"fused": COST, "alpha": twice}, measured=measured)


def test_the_line_is_about_the_method_that_is_used() -> None:
    assert forecast_line(forecast()) == (
        "  forecast  fused: about 1.5s, 6 MiB beside the model, 1 pass, 32,426 tokens, 8.3G operations"
    )


def test_vectors_over_all_parameters_are_stated() -> None:
    cost = msgspec.structs.replace(COST, parameter_lengths=4)
    made = msgspec.structs.replace(forecast(), predicted={"fused": cost})
    assert "6 MiB beside the model (4 parameter-lengths), 1 pass" in forecast_line(made)


def test_the_table_has_all_methods() -> None:
    head, fused, alpha = forecast_table(forecast())
    assert head.startswith("forecast")
    assert fused.startswith("  → fused  about 1.5s")
    assert alpha == "    alpha  time unknown, 4 GiB beside the model, 2 passes, 40,000 tokens, — operations"


def test_the_outcome_is_a_multiple_of_the_forecast() -> None:
    over = Observed(
        flops_per_second=1e9,
        scoring_flops_per_second=2e9,
        expected_seconds={"fused": 1.5},
        seconds=3.0,
        memory=3 * 2**20,
    )
    assert outcome_line(forecast(over)) == "  it took 3.0s (2 of the forecast), 3 MiB (0.5 of the forecast)"
