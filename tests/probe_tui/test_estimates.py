"""The estimates as named numbers: what stands where in the report."""

from __future__ import annotations

from typing import Any

import finished_states
import msgspec
import pytest
from finished_states import SPLIT, U_STATISTIC, realized, report
from msgspec.structs import replace

from probe_engine.report import Baselines, Estimates, RankCorrelation, Report, XEstimates
from probe_engine.spec import Setting
from probe_tui.estimates import (
    comparisons,
    headline,
    leading,
    measurements,
    numbers,
    predictions,
    step_parts,
)


def at(whole: Report, path: str) -> Any:
    """What jq finds at a plain path of keys and indices."""
    value = msgspec.to_builtins(whole)
    for key in path.replace("[", ".").replace("]", "").strip(".").split("."):
        value = value[int(key)] if key.isdigit() else value[key]
    return value


def test_every_number_is_where_its_path_says() -> None:
    whole = report()
    estimates = [*predictions(whole.estimates), *measurements(whole)]
    estimates += [e for _, members in comparisons(whole) for e in members]
    named = [n for _, table in numbers(whole) for n in table]
    assert len(estimates) == 3 + 6 + 8
    assert len(named) == 7 + 8 + 2 + 1
    for e in estimates:
        assert at(whole, e.path) == e.interval.value
    for n in named:
        assert at(whole, n.path) == n.value


def by_both(**changes: Any) -> Estimates:
    """As a run with both forms of X reports them; the Rao-Blackwell form is the quieter one."""
    scores = Estimates(u_statistic=U_STATISTIC, split=SPLIT, adamw=finished_states.ADAMW)
    quieter = XEstimates(
        u_statistic=replace(U_STATISTIC, delta_h1=-0.0013, se_jackknife=0.0001),
        split=replace(SPLIT, delta_h1=-0.00129, se=0.0001),
        adamw=replace(finished_states.ADAMW, delta_h1=-0.00115, se=5e-05),
    )
    return replace(scores, **({"rao_blackwell": quieter, "x_estimator": "rao_blackwell"} | changes))


def test_by_both_forms_the_headline_s_comes_first_and_its_numbers_are_listed() -> None:
    whole = report(estimates=by_both())
    found = predictions(whole.estimates)
    assert [e.name for e in found] == [
        "optimizer's step R-B",
        "optimizer's step",
        "U-statistic R-B",
        "U-statistic",
        "split E/U R-B",
        "split E/U",
    ]
    for e in found:
        assert at(whole, e.path) == e.interval.value
    tables = dict(numbers(whole))
    for named in (n for table in tables.values() for n in table):
        assert at(whole, named.path) == named.value
    by = [title for title in tables if title.endswith("by the Rao-Blackwell form of X")]
    assert len(by) == 3
    assert {n.path.split(".")[2] for title in by for n in tables[title]} == {"rao_blackwell"}
    head = headline(whole)
    assert head is not None
    assert head.estimate.path == ".estimates.rao_blackwell.adamw.delta_h1"
    assert head.by == "It is by the Rao-Blackwell form of X: SE 5e-05 by Rao-Blackwell, 0.00015 by score."


def test_where_the_score_form_is_the_headline_it_comes_first() -> None:
    whole = report(estimates=by_both(x_estimator="score"))
    assert [e.name for e in predictions(whole.estimates)][:2] == ["optimizer's step", "optimizer's step R-B"]
    assert {n.path.split(".")[2] for n in step_parts(whole)} == {"adamw"}
    head = headline(report())
    assert head is not None
    assert head.by == ""


@pytest.mark.parametrize(
    ("weighting", "words"),
    [
        ("dr_grpo", "nats per token slot"),
        ("sequence", "nats per sequence"),
        ("per_token", "nats per token"),
    ],
)
def test_the_headline_has_the_unit_of_the_weighting(weighting: str, words: str) -> None:
    head = headline(report(config={"weighting": Setting(weighting, "flag")}))
    assert head is not None
    assert head.value == f"δH₁ = -0.00125 {words}"
    assert head.bounds == "95% [-0.0016, -0.0009]"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "Entropy falls: the whole interval lies below 0."),
        ({"delta_h1": 0.1, "ci95": (0.05, 0.15)}, "Entropy rises: the whole interval lies above 0."),
        (
            {"ci95": (-0.0016, 0.0001), "prompts_needed": 90},
            "The sign is not known: it looks like a fall, but the interval covers 0; "
            "90 prompts would do at this effect size.",
        ),
        (
            {"delta_h1": 0.1, "ci95": (0.0, 0.2), "prompts_needed": None},
            "The sign is not known: it looks like a rise, but the interval covers 0.",
        ),
        ({"ci95": None}, "It looks like a fall of entropy; too few prompts for an interval."),
        ({"delta_h1": 0.0, "ci95": (0.0, 0.0)}, "Exactly 0: the step, or every policy gradient, is 0."),
    ],
)
def test_only_an_interval_without_0_says_that_entropy_falls_or_rises(
    changes: dict[str, Any], words: str
) -> None:
    head = headline(report(estimates=Estimates(u_statistic=replace(U_STATISTIC, **changes))))
    assert head is not None
    assert head.words == words


def test_the_headline_is_the_first_estimate_that_is_a_number() -> None:
    nan = replace(U_STATISTIC, delta_h1=None, ci95=(None, None))
    head = headline(report(estimates=Estimates(u_statistic=nan, split=SPLIT)))
    assert head is not None
    assert head.estimate.path == ".estimates.split.delta_h1"
    assert headline(report(estimates=Estimates(u_statistic=nan))) is None
    assert headline(report(estimates=Estimates())) is None


def test_blocks_are_called_blocks() -> None:
    whole = report(config={"units": Setting("block", "flag")})
    said = {n.label: n.text for _, table in numbers(whole) for n in table}
    assert said["B"] == "64 blocks"


def test_an_estimate_is_copied_with_its_unit_and_interval() -> None:
    whole = report()
    split = predictions(whole.estimates)[1]
    assert split.said("nats/slot") == "δH₁ split E/U = -0.0012 nats/slot, 95% [-0.00156, -0.00084]"
    bare = replace(finished_states.V_STATISTIC, ci95=None)
    (v,) = predictions(Estimates(v_statistic=bare))
    assert v.said("nats/slot") == "δH₁ V-statistic = -0.0014 nats/slot"


def test_a_measurement_is_compared_with_the_estimate_that_predicts_it() -> None:
    groups = dict(comparisons(report()))
    held_out, same_batch = groups.values()
    assert [e.interval.label for e in held_out] == ["δH₁ split E/U", "ΔĤ matched", "ΔĤ snis", "ΔĤ psis"]
    assert [e.path for e in same_batch][:2] == [".estimates.v_statistic.delta_h1", ".realized[3].delta_h"]
    assert [g.split(":")[0] for g in groups] == [
        "preconditioned step, held-out",
        "preconditioned step, same-batch",
    ]


def test_the_optimizers_own_step_is_the_headline_and_is_compared_with_its_own_prediction() -> None:
    estimates = replace(report().estimates, adamw=finished_states.ADAMW)
    rows = [
        realized("held_out", "per_decision", step="adamw"),
        realized("held_out", "matched", step="adamw"),
        realized("held_out", "per_decision"),
    ]
    whole = report(estimates=estimates, realized=rows)
    head = headline(whole)
    assert head is not None
    assert head.estimate.path == ".estimates.adamw.delta_h1"
    assert [e.path for e in leading(whole)] == [".realized[0].delta_h", ".realized[2].delta_h"]
    own, preconditioned = (members for _, members in comparisons(whole))
    assert own[0].path == ".estimates.adamw.delta_h1"
    assert preconditioned[0].path == ".estimates.split.delta_h1"
    assert [n.label for n in step_parts(whole)] == ["gradient", "clipping", "momentum", "weight decay"]
    assert step_parts(report()) == []


def test_a_step_without_an_estimate_of_its_own_has_the_rows_prediction() -> None:
    other = realized("held_out", "per_decision", step="adamw", predicted=-0.002)
    ((heading, (prediction, measured)),) = comparisons(report(realized=[other]))
    assert heading.startswith("adamw step, held-out")
    assert (prediction.path, prediction.interval.value) == (".realized[0].predicted", -0.002)
    assert (prediction.interval.lo, prediction.interval.hi) == (None, None)
    assert measured.interval.label == "ΔĤ per-decision"


def test_each_measured_row_of_the_plot_names_its_step_and_pairing() -> None:
    rows = [
        realized(pairing, "per_decision", step=step)
        for step in ("adamw", "preconditioned")
        for pairing in ("held_out", "same_batch")
    ]
    whole = report(realized=rows)
    labels = [e.interval.label for e in leading(whole)]
    assert labels == ["adamw held-out", "adamw same-batch", "precond held-out", "precond same-batch"]
    assert {e.interval.note for e in leading(whole)} == {"per-decision"}
    assert measurements(whole)[0].interval.label == "adamw held-out per-decision"


def test_the_baselines_scale_is_called_arbitrary_and_its_sign_compared() -> None:
    def said(value: float) -> tuple[str, str]:
        estimates = replace(report().estimates, baselines=Baselines(covariance=value, discriminant=None))
        *_, (heading, (covariance,)) = numbers(report(estimates=estimates))
        return heading, covariance.meaning

    heading, same = said(-0.2)
    assert heading == "baseline: its scale is arbitrary, only sign and rank compare"
    assert same.endswith("the same sign as δH₁")
    assert said(0.2)[1].endswith("another sign than δH₁")


def test_the_ranks_of_the_baselines_stand_below_them_with_what_chance_would_do() -> None:
    baselines = Baselines(
        covariance=-0.2,
        discriminant=0.1,
        covariance_ranks=RankCorrelation(contribution_r=0.6, x_dot_py=0.4),
        discriminant_ranks=RankCorrelation(contribution_r=-0.1, x_dot_py=None),
    )
    rao_blackwell = XEstimates(u_statistic=replace(U_STATISTIC, B=26))
    estimates = replace(
        report().estimates,
        baselines=baselines,
        rao_blackwell=rao_blackwell,
        x_estimator="rao_blackwell",
    )
    whole = report(estimates=estimates)
    *_, (heading, ranks) = numbers(whole)
    assert heading == (
        "do they rank the prompts as the probe does? Spearman's ρ (0 ± 0.2 by chance), "
        "by the Rao-Blackwell form of X"
    )
    assert [(n.label, n.text) for n in ranks] == [
        ("cov, −η·r_n", "0.6"),
        ("cov, X·PY", "0.4"),
        ("disc, −η·r_n", "-0.1"),
    ]
    assert all(at(whole, n.path) == n.value for n in ranks)


def test_ranks_that_are_not_known_have_no_heading() -> None:
    unknown = RankCorrelation(contribution_r=None, x_dot_py=None)
    baselines = Baselines(
        covariance=0.0, discriminant=0.0, covariance_ranks=unknown, discriminant_ranks=unknown
    )
    *_, (heading, _) = numbers(report(estimates=replace(report().estimates, baselines=baselines)))
    assert heading.startswith("baseline:")


def test_what_this_version_does_not_estimate_is_not_shown() -> None:
    flat = str([(heading, table) for heading, table in numbers(report())])
    for absent in ("adamw", "rao", "discriminant"):
        assert absent not in flat
    assert list(numbers(Report(tool=report().tool))) == []
