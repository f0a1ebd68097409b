"""The plain reader, line by line: what each kind of event says, and the rate and time left of long work."""

from __future__ import annotations

import io
from typing import Any

import pytest
from finished_states import ADAMW
from msgspec.structs import replace

from probe_engine.errors import ProbeError
from probe_engine.events import (
    AnyEvent,
    EstimateEvent,
    Failed,
    FindingEvent,
    Finished,
    Heartbeat,
    Hello,
    Part,
    Progress,
    StageFinished,
    StageStarted,
    Units,
)
from probe_engine.report import (
    Baselines,
    CheckpointInfo,
    Environment,
    Estimates,
    GradientFlow,
    OptimizerInfo,
    RankCorrelation,
    RealizedRow,
    RolloutsInfo,
    RunInfo,
    SplitEstimate,
    Tool,
    UnitRow,
    UStatistic,
    Verdict,
    VerdictRow,
    VStatistic,
    XEstimates,
    finding,
)
from probe_tui.plain import Plain


class Screen:
    """A plain reader with streams and a clock to look at."""

    def __init__(self, *, verbose: bool = True) -> None:
        self.out = io.StringIO()
        self.narration = io.StringIO()
        self.now = 100.0
        self.reader = Plain(self.out, self.narration, verbose=verbose, clock=lambda: self.now)

    def hear(self, *events: AnyEvent) -> list[str]:
        """The lines that these events added to the output."""
        before = len(self.out.getvalue())
        for event in events:
            self.reader(event)
        return self.out.getvalue()[before:].splitlines()


@pytest.fixture
def screen() -> Screen:
    return Screen()


def test_hello_says_who_speaks(screen: Screen) -> None:
    environment = Environment(
        python="3.11",
        torch="2.13",
        transformers="5.23",
        peft="0.21",
        device="cpu",
        dtype="float32",
        threads=2,
    )
    (line,) = screen.hear(Hello(pid=1, seed=7, tool=Tool(version="0.1"), environment=environment, config={}))
    assert line == (
        "probe-tui 0.1 · torch 2.13 · transformers 5.23 · peft 0.21 · cpu float32, 2 threads · seed 7"
    )


def test_stages_begin_and_end(screen: Screen) -> None:
    lines = screen.hear(StageStarted(stage="measure"), StageFinished(stage="measure", seconds=2.34))
    assert lines == ["", "▶ measure", "  measure took 2.3 s"]


def test_progress_tells_rate_and_time_left_every_two_seconds(screen: Screen) -> None:
    screen.hear(StageStarted(stage="measure"))
    for seconds, done in ((1.9, 1000), (2.0, 1200), (3.9, 3000), (4.0, 8000)):
        screen.now = 100.0 + seconds
        screen.hear(Progress(stage="measure", done=done, total=20_000))
    assert screen.narration.getvalue().splitlines() == [
        "  … measure: 1,200 of 20,000 tokens, 600 tokens/s, 31 s left",
        "  … measure: 8,000 of 20,000 tokens, 2,000 tokens/s, 6 s left",
    ]


def test_the_rate_is_that_of_the_stage(screen: Screen) -> None:
    """A stage's clock begins with the stage, not with the run."""
    screen.hear(StageStarted(stage="load"))
    screen.now += 50
    screen.hear(StageFinished(stage="load", seconds=50.0), StageStarted(stage="realize"))
    screen.now += 10
    assert screen.hear(Progress(stage="realize", done=5, total=10, unit="responses")) == []
    assert screen.narration.getvalue() == ("  … realize: 5 of 10 responses, 0.5 responses/s, 10 s left\n")


def test_nothing_done_yet_has_no_time_left(screen: Screen) -> None:
    screen.hear(StageStarted(stage="load"))
    screen.now += 3
    screen.hear(Progress(stage="load", done=0, total=10, unit="bytes"))
    assert screen.narration.getvalue() == "  … load: 0 of 10 bytes, 0 bytes/s, time left unknown\n"


def test_a_finding_has_glyph_word_code_message_and_remedy(screen: Screen) -> None:
    found = finding("OPT007", "warn", "expected a rate above 0, found 0")
    assert screen.hear(FindingEvent(finding=found)) == [
        "  ! warn  OPT007 learning rate: expected a rate above 0, found 0",
        f"          remedy: {found.remedy.text}",
        "            $ probe-tui CHECKPOINT --lr 1e-6",
    ]
    assert screen.hear(FindingEvent(finding=finding("CKPT006", "ok", "28 tensors, all finite"))) == [
        "  ✓ ok    CKPT006 finite weights: 28 tensors, all finite"
    ]


def test_a_snippet_stands_below_the_remedy_line_by_line(screen: Screen) -> None:
    found = finding("GRAD013", "fail", "cut", evidence={"snippet": "module = model\nprint(module)"})
    assert screen.hear(FindingEvent(finding=found))[-3:] == [
        "          to see it:",
        "            module = model",
        "            print(module)",
    ]


def test_a_consequence_names_its_cause_instead_of_a_remedy(screen: Screen) -> None:
    found = replace(finding("GRAD007", "fail", "6 are None", value=6), cause="GRAD013")
    assert screen.hear(FindingEvent(finding=found)) == [
        "  ✗ fail  GRAD007 X gradients: 6 are None",
        "          follows from GRAD013",
    ]


def test_what_is_fine_is_told_to_the_verbose_only() -> None:
    quiet = Screen(verbose=False)
    for status in ("ok", "skip"):
        assert quiet.hear(FindingEvent(finding=finding("OPT007", status, "fine"))) == []  # type: ignore[arg-type]
    assert quiet.hear(FindingEvent(finding=finding("OPT007", "info", "noticed")))
    assert quiet.hear(Finished(run=RunInfo()))[-1] == "findings: 1 ok, 1 info, 1 skip"


def checkpoint(**changes: Any) -> CheckpointInfo:
    optimizer = OptimizerInfo(
        class_="AdamW",
        lr=1e-5,
        lr_origin="optimizer.pt",
        betas=(0.9, 0.999),
        eps=1e-8,
        weight_decay=0.0,
        step=200.0,
        matched=12,
        missing=0,
        fallbacks=0,
        mapped_by="position",
    )
    values = {
        "path": "checkpoint-200",
        "format": "hf-trainer",
        "kind": "peft",
        "step": 200,
        "base": "base",
        "trainable_tensors": 12,
        "trainable_parameters": 4608,
        "optimizer": optimizer,
    }
    return CheckpointInfo(**(values | changes))


def test_checkpoint_and_rollouts(screen: Screen) -> None:
    assert screen.hear(Part(checkpoint=checkpoint())) == [
        "  checkpoint-200 · hf-trainer peft, step 200, base base",
        "  12 trainable tensors, 4,608 parameters",
        "  AdamW lr 1e-05 (optimizer.pt), betas 0.9 0.999, step 200; state for 12 of 12, by position",
    ]
    assert screen.hear(Part(checkpoint=checkpoint(step=None, base=None)))[0] == (
        "  checkpoint-200 · hf-trainer peft, step unknown"
    )
    rollouts = RolloutsInfo(
        path="completions_00201.parquet",
        format="TRL completions (parquet)",
        prompts=8,
        responses=32,
        tokens=12_345,
        tokens_from="text",
        max_completion_length=512,
        max_completion_length_origin="training_args.bin",
        loss_type="dapo",
        advantages_from="logged",
        step=201,
        sampled_here=False,
    )
    assert screen.hear(Part(rollouts=rollouts)) == [
        "  completions_00201.parquet · TRL completions (parquet), step 201",
        "  8 prompts, 32 responses, 12,345 response tokens (from text)",
        "  advantages: logged; loss type dapo; L_max 512 (training_args.bin)",
    ]


def panel(**changes: Any) -> GradientFlow:
    values: dict[str, Any] = {
        "grad_context": "grad on, inference mode off",
        "logits_grad_fn": "<ViewBackward0>",
        "s_grad_fn": "<SumBackward1>",
        "dl_ds_nonzero": True,
        "reaches_embeddings": False,
        "registry": 12,
        "x_non_none": 12,
        "x_non_zero": 11,
        "y_non_none": 12,
        "y_non_zero": 12,
        "matched": 12,
        "missing": 0,
        "stray": 0,
        "fallbacks": 3,
        "sum_x_norm": 1.5,
        "sum_y_norm": 0.25,
        "sum_py_norm": None,
        "stale_ratio": None,
        "mapping_correlation": None,
    }
    return GradientFlow(**(values | changes))


def test_the_panel_has_every_link_and_only_changes_are_repeated(screen: Screen) -> None:
    lines = screen.hear(Part(gradient_flow=panel()))
    assert lines == [
        "  grad context        grad on, inference mode off",
        "  logits grad_fn      <ViewBackward0>",
        "  S grad_fn           <SumBackward1>",
        "  ∂L/∂S non-zero      yes",
        "  reaches embeddings  no",
        "  X                   12/12 non-None, 11 non-zero",
        "  Y                   12/12 non-None, 12 non-zero",
        "  registry / μ_Y ids  12 matched, 0 missing, 0 stray",
        "  P falls back        3 of 12",
        "  ‖ΣX‖ ‖ΣY‖ ‖ΣPY‖     1.5  0.25  —",
    ]
    assert screen.hear(Part(gradient_flow=panel(sum_py_norm=2.0))) == ["  ‖ΣX‖ ‖ΣY‖ ‖ΣPY‖     1.5  0.25  2"]


def unit(name: str, contribution: float | None) -> UnitRow:
    return UnitRow(
        id=name,
        prompt=f"What\nis {name}?",
        role="E",
        G=4,
        tokens=40,
        reward_mean=0.5,
        reward_std=0.1,
        S=[],
        advantages=[],
        x_norm=None,
        y_norm=None,
        py_norm=None,
        x_dot_py=None,
        contribution_r=contribution,
        responses=[],
    )


def test_estimates_with_their_errors_and_the_prompts_that_move_entropy_most(screen: Screen) -> None:
    names = [f"p{i}" for i in range(7)]
    screen.hear(Units(rows=[unit(name, None) for name in names]))
    screen.hear(Units(rows=[unit(name, -1e-3 * i) for i, name in enumerate(names)]))  # replaces by id
    u = UStatistic(
        u_cross=3.0, delta_h1=-3e-3, se_plugin=1e-3, se_jackknife=1.2e-3, ci95=(-6e-3, None), zeta1=1.0,
        zeta2=None, B=7, prompts_needed=None,
    )  # fmt: skip
    split = SplitEstimate(
        delta_h1=-2e-3, se=2e-3, se_conditional=1e-3, var_e=1.0, var_u=1.0, mean_s=1.0, sum_s=1.0, sum_s2=1.0,
        B_E=4, B_U=3, df=None, ci95=None, prompts_needed=None,
    )  # fmt: skip
    estimates = Estimates(
        u_statistic=u,
        split=split,
        v_statistic=VStatistic(delta_h1=-4e-3, se=None, ci95=(-5e-3, -3e-3)),
        baselines=Baselines(covariance=0.125, discriminant=None),
    )
    lines = screen.hear(EstimateEvent(estimates=estimates))
    assert lines[:5] == [
        "  predicted change of entropy, δH₁ ± SE in nats (negative: entropy falls)",
        "    U-statistic  -0.003 ± 0.0012 (jackknife; plug-in 0.001), 95% [-0.006, —], B = 7",
        "    split E/U    -0.002 ± 0.002 (given U 0.001), 95% unknown, B_E = 4, B_U = 3",
        "    V-statistic  -0.004 ± —, 95% [-0.005, -0.003]",
        "    covariance baseline 0.125 (its scale is arbitrary: compare the sign)",
    ]
    assert lines[5] == "  prompts that move it most (−η·r_n, share of their sum; 7 in all)"
    assert [line.split()[2] for line in lines[6:]] == ["p6", "p5", "p4", "p3", "p2"]
    assert lines[6] == "        -0.006   28.6%  p6  reward 0.5  'What is p6?'"


def test_each_baseline_says_how_it_ranks_the_prompts(screen: Screen) -> None:
    u = UStatistic(
        u_cross=3.0, delta_h1=-3e-3, se_plugin=1e-3, se_jackknife=1.2e-3, ci95=None, zeta1=1.0,
        zeta2=None, B=17, prompts_needed=None,
    )  # fmt: skip
    baselines = Baselines(
        covariance=0.125,
        discriminant=-0.5,
        covariance_ranks=RankCorrelation(contribution_r=0.687, x_dot_py=None),
        discriminant_ranks=RankCorrelation(contribution_r=-0.0731, x_dot_py=1.0),
    )
    lines = screen.hear(EstimateEvent(estimates=Estimates(u_statistic=u, baselines=baselines)))
    assert lines[2:] == [
        "    covariance baseline 0.125 (its scale is arbitrary: compare the sign)",
        "      its ranks  ρ = 0.69 with −η·r_n, — with X·PY (0 ± 0.25 by chance)",
        "    discriminant baseline -0.5 (likewise)",
        "      its ranks  ρ = -0.073 with −η·r_n, 1 with X·PY (0 ± 0.25 by chance)",
    ]


def test_of_both_forms_the_headline_s_comes_first(screen: Screen) -> None:
    units = [replace(unit(name, -1e-3), contribution_r_rb=-1e-3 * (i + 1)) for i, name in enumerate("ab")]
    screen.hear(Units(rows=units))
    u = UStatistic(
        u_cross=3.0, delta_h1=-3e-3, se_plugin=1e-3, se_jackknife=1.2e-3, ci95=(-6e-3, None), zeta1=1.0,
        zeta2=None, B=7, prompts_needed=None,
    )  # fmt: skip
    quieter = replace(u, delta_h1=-2.5e-3, se_jackknife=4e-4)
    estimates = Estimates(
        u_statistic=u, rao_blackwell=XEstimates(u_statistic=quieter), x_estimator="rao_blackwell"
    )
    lines = screen.hear(EstimateEvent(estimates=estimates))
    assert lines[1:6] == [
        "    by the Rao-Blackwell form of X, the headline",
        "    U-statistic  -0.0025 ± 0.0004 (jackknife; plug-in 0.001), 95% [-0.006, —], B = 7",
        "    by the score form of X",
        "    U-statistic  -0.003 ± 0.0012 (jackknife; plug-in 0.001), 95% [-0.006, —], B = 7",
        "  prompts that move it most (−η·r_n, share of their sum; 2 in all)",
    ]
    assert [line.split()[2] for line in lines[6:]] == ["b", "a"]


def row(estimator: Any, **changes: Any) -> RealizedRow:
    values: dict[str, Any] = {
        "step": "preconditioned",
        "pairing": "held_out",
        "scale": 1.0,
        "predicted": -2e-3,
        "delta_h": -1.9e-3,
        "se": 1e-4,
        "ci95": None,
        "estimator": estimator,
        "h_before": 1.0,
        "h_after": 0.998,
        "ess": 15.5,
        "ess_fraction": 0.97,
        "khat": None,
        "N": 16,
        "units": [],
    }
    return RealizedRow(**(values | changes))


def test_measured_changes_are_told_once(screen: Screen) -> None:
    first = "    held-out, matched        ΔĤ -0.0019 ± 0.0001, predicted -0.002, ESS 15.5 of 16, k̂ —"
    assert screen.hear(Part(realized=[row("matched")])) == [
        "  measured change ± SE, after the preconditioned step (the weights are put back)",
        first,
    ]
    both = [row("matched"), row("psis", delta_h=None)]
    other = row("per_decision", step="adamw")
    assert screen.hear(Part(realized=both)) == [
        "    held-out, psis           ΔĤ — ± 0.0001, predicted -0.002, ESS 15.5 of 16, k̂ —"
    ]
    assert screen.hear(Part(realized=[*both, other])) == [
        "  measured change ± SE, after the adamw step (the weights are put back)",
        first.replace("matched     ", "per-decision"),
    ]


def test_fresh_responses_and_the_form_that_predicted_are_told(screen: Screen) -> None:
    fresh = row("resample", x_estimator="rao_blackwell", ess=16.0, ess_fraction=1.0)
    (said,) = screen.hear(Part(realized=[fresh]))[1:]
    assert said.startswith("    held-out, resample       ΔĤ -0.0019 ± 0.0001, predicted -0.002 ")
    assert said.endswith(" (Rao-Blackwell), 16 fresh responses")


def test_the_optimizers_own_step_is_told_first_with_its_parts(screen: Screen) -> None:
    lines = screen.hear(EstimateEvent(estimates=Estimates(adamw=ADAMW)))
    assert lines[1:] == [
        "    own step     -0.0011 ± 0.00015 (what the optimizer does next), 95% [-0.0014, -0.0008], "
        "B_E = 33, B_U = 31",
        "      of it      gradient -0.0004, clipping 0.0003, momentum -0.001, weight decay 0",
    ]


def test_the_verdict_names_its_row_and_reason(screen: Screen) -> None:
    verdict = Verdict(
        status="agree",
        row=VerdictRow(step="preconditioned", pairing="held_out", estimator="matched"),
        predicted=-2e-3,
        measured=-1.9e-3,
        z=0.3,
        reason="Predicted and measured agree.",
    )
    assert screen.hear(Part(verdict=verdict)) == [
        "  VERDICT agree (preconditioned step, held-out, matched)",
        "  Predicted and measured agree.",
    ]


def test_the_end_counts_the_findings_and_names_the_folder(screen: Screen) -> None:
    screen.hear(
        FindingEvent(finding=finding("CKPT006", "ok", "fine")),
        FindingEvent(finding=finding("CKPT005", "ok", "fine")),
        FindingEvent(finding=finding("OPT007", "warn", "0")),
    )
    assert screen.hear(Finished(run=RunInfo(folder="RUN"))) == [
        "",
        "· Whether gradient flows is not known: the run ended before",
        "findings: 2 ok, 1 warn",
        "run folder: RUN",
    ]


def test_a_run_that_stops_says_why_and_what_to_do(screen: Screen) -> None:
    failed = Failed(message="no weights", remedy="copy them again", run=RunInfo())
    assert screen.hear(failed) == [
        "",
        "✗ stopped: no weights",
        "  remedy: copy them again",
        "",
        "· Whether gradient flows is not known: the run ended before",
        "findings: none",
    ]


def test_signs_of_life_are_silent(screen: Screen) -> None:
    assert screen.hear(Heartbeat()) == []
    assert screen.narration.getvalue() == ""


@pytest.mark.parametrize(
    ("raised", "code", "exit_code"),
    [(BrokenPipeError(), "", 130), (OSError(28, "No space left"), "RUN003", 3)],
)
def test_an_output_that_breaks_stops_the_run(raised: OSError, code: str, exit_code: int) -> None:
    class Broken(io.StringIO):
        def write(self, _: str) -> int:
            raise raised

    reader = Plain(Broken(), io.StringIO())
    with pytest.raises(ProbeError) as stopped:
        reader(StageStarted(stage="load"))
    assert (stopped.value.code, stopped.value.exit_code) == (code, exit_code)
