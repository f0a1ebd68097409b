"""STAT001 and STAT002 at their borders, with and without fresh responses."""

from __future__ import annotations

import msgspec
import pytest
import torch
from realized import row

from probe_engine.checks.weights import sample_size, shrunk, tail
from probe_engine.report import RealizedRow, RealizedUnit


@pytest.mark.parametrize(
    ("rows", "status", "said"),
    [
        ([row(khat=0.9)], "info", "hardly differ"),
        ([row(khat=1.7, ess_fraction=0.999)], "info", "hardly differ"),
        ([row(khat=0.9, ess_fraction=0.8)], "warn", "variance"),
        ([row(khat=1.2, ess_fraction=0.8)], "fail", "mean"),
        ([row(khat=1.2), row(khat=0.6, ess_fraction=0.8, pairing="held_out")], "warn", "held-out"),
        ([row(khat=0.3)], "ok", ""),
        ([row(khat=None)], "skip", ""),
    ],
)
def test_a_tail_of_even_weights_is_no_alarm(rows, status, said) -> None:
    found = tail(rows)
    assert found.status == status
    assert said in found.message


def weighed(log_w: list[list[float]]) -> RealizedRow:
    """A measured row with these log-weights."""
    flat = torch.tensor([x for unit in log_w for x in unit], dtype=torch.float64)
    w = flat.exp()
    ess = float(w.sum() ** 2 / (w * w).sum())
    units = [RealizedUnit(id=f"u{n}", d=0.0, ess=None, log_w=list(unit)) for n, unit in enumerate(log_w)]
    return row(ess=ess, ess_fraction=ess / len(flat), khat=None, N=len(flat), units=units)


def test_the_remedy_of_a_small_ess_names_a_step_that_keeps_half_of_it() -> None:
    generator = torch.Generator().manual_seed(2)
    log_w = (torch.randn(8, 4, generator=generator, dtype=torch.float64) * 3).tolist()
    found = sample_size([weighed(log_w)], eta=2e-4)
    assert found.status == "fail"
    command, other = found.remedy.commands
    assert other == "probe-tui CHECKPOINT --resample"
    lr = float(command.removeprefix("probe-tui CHECKPOINT --lr "))
    followed, further = (
        sample_size([weighed([[x * lr * much / 2e-4 for x in unit] for unit in log_w])], eta=lr)
        for much in (1.0, 1.15)
    )
    assert (followed.status, further.status) == ("ok", "warn")


def test_the_unit_that_eats_the_ess_is_named_with_what_it_would_be_without_it() -> None:
    """Its own weights are even: it is all of them that are large. u2's are uneven and small."""
    found = sample_size([weighed([[0.0, 0.0], [2.0, 2.0], [-9.0, -6.0], [0.0, 0.1], [0.1, 0.0]])], eta=1e-3)
    assert found.status == "warn"
    assert "Unit u1 eats most of it: without that one it would be 75%" in found.message
    alike = sample_size([weighed([[4.0, 0.0, 0.0, 0.0]] * 8)], eta=1e-3)
    assert alike.status == "fail"
    assert "eats" not in alike.message


def test_without_weights_to_go_by_it_is_a_tenth() -> None:
    assert shrunk(msgspec.structs.replace(weighed([[0.0, 0.0]]), units=[])) == 0.1


FRESH = row(estimator="resample", ess=100.0, ess_fraction=1.0, khat=None)
HELD_OUT = row(pairing="held_out", ess=90.0, ess_fraction=0.9)


@pytest.mark.parametrize(
    ("rows", "status", "resample"),
    [
        ([row(ess_fraction=0.2999)], "fail", True),
        ([row(ess_fraction=0.3)], "warn", False),
        ([row(ess_fraction=0.5)], "ok", False),
        ([FRESH, row(ess_fraction=0.2999), HELD_OUT], "info", False),
        ([FRESH, row(ess_fraction=0.2), row(pairing="held_out", ess_fraction=0.4)], "warn", False),
        ([FRESH, row(ess_fraction=0.2), row(pairing="held_out", ess_fraction=0.29)], "fail", True),
        ([FRESH, row(ess_fraction=0.8)], "ok", False),
    ],
)
def test_fresh_responses_stand_in_for_their_own_step_and_pairing_alone(rows, status, resample) -> None:
    found = sample_size(rows, 1e-4)
    assert found.status == status
    assert ("probe-tui CHECKPOINT --resample" in found.remedy.commands) == resample
    assert ("fresh responses" in found.message) == (status == "info")


@pytest.mark.parametrize(
    ("rows", "status", "resample"),
    [
        ([row(khat=1.0, ess_fraction=0.89)], "fail", True),
        ([row(khat=0.999, ess_fraction=0.89)], "warn", False),
        ([FRESH, row(khat=1.0, ess_fraction=0.89), HELD_OUT], "info", False),
        (
            [FRESH, row(khat=2.0, ess_fraction=0.8), row(pairing="held_out", khat=0.6, ess_fraction=0.8)],
            "warn",
            False,
        ),
        ([FRESH, row(khat=0.2, ess_fraction=0.2)], "ok", False),
    ],
)
def test_a_tail_that_fresh_responses_stand_in_for_is_no_alarm(rows, status, resample) -> None:
    found = tail(rows)
    assert found.status == status
    assert ("probe-tui CHECKPOINT --resample" in found.remedy.commands) == resample


def test_it_is_said_what_hinders_fresh_responses() -> None:
    for found in (
        sample_size([row(ess_fraction=0.2)], 1e-4, hindrance="it has no mouth"),
        tail([row(khat=1.2, ess_fraction=0.2)], hindrance="it has no mouth"),
    ):
        assert found.remedy.text.endswith("Fresh responses can't stand in here: it has no mouth.")
        assert not any("--resample" in command for command in found.remedy.commands)
