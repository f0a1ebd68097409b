"""Fresh responses after the step, on a transformer whose responses can all be listed."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from itertools import product
from typing import Any

import pytest
import tiny
import torch
from oracles.twin import Prompt, Twin
from torch import Tensor, nn

from probe_engine import probe
from probe_engine.model.sampling import sampled_responses
from probe_engine.report import Finding, RealizedRow, Report
from probe_engine.stages.resample import obstacle
from probe_engine.types import Batch, Group, Policy, Response, Unit

V, L_MAX, EOS, G = 4, 3, 0, 4
LR = 1.0
"""Ten times the longest step that STAT001 has nothing against."""
LISTED = [
    *((*body, EOS) for length in range(L_MAX) for body in product(range(1, V), repeat=length)),
    *product(range(1, V), repeat=L_MAX),
]


def model() -> nn.Module:
    return tiny.model("llama", vocab_size=V, eos_token_id=EOS, bos_token_id=None, pad_token_id=None)


def policy(of: nn.Module) -> Policy:
    return replace(tiny.policy(of), tokenizer=None)


@cache
def batch() -> Batch:
    """Every prompt of three tokens, with responses of the policy's own; its reward is how often it says 1."""
    prompts = list(product(range(V), repeat=3))[::2]
    repeated = [p for p in prompts for _ in range(G)]
    chunks = sampled_responses(policy(model()), repeated, max_new_tokens=L_MAX, seed=1, micro_batch=64)
    responses = [r for chunk in chunks for r in chunk]
    units = []
    for n, prompt in enumerate(prompts):
        own = responses[n * G : (n + 1) * G]
        mean = sum(r.count(1) for r in own) / G
        group = Group(
            id=f"p{n}",
            text="",
            tokens=prompt,
            responses=tuple(Response(r, "", r.count(1) - mean, terminated=r[-1] == EOS) for r in own),
        )
        units.append(Unit(group.id, "E" if n % 2 else "U", (group,)))
    return Batch(tuple(units), L_MAX, "option", "dr_grpo", "dr_grpo")


def entropy(of: nn.Module, prompt: tuple[int, ...], weighting: str) -> float:
    """H of one prompt, over all responses."""
    padded = torch.tensor([[*prompt, *y, *[EOS] * (L_MAX - len(y))] for y in LISTED])
    with torch.no_grad():
        log_probs = of(padded).logits[:, len(prompt) - 1 : -1].double().log_softmax(-1)
    lengths = torch.tensor([len(y) for y in LISTED])
    said = torch.arange(L_MAX) < lengths[:, None]
    S = (log_probs.gather(-1, padded[:, len(prompt) :, None]).squeeze(-1) * said).sum(1)
    assert float(S.exp().sum()) == pytest.approx(1, abs=1e-5)
    lam = 1 / lengths if weighting == "per_token" else torch.full((len(LISTED),), 1 / L_MAX)
    return float(-(S.exp() * lam * S).sum())


@cache
def truth(weighting: str = "dr_grpo") -> tuple[float, float]:
    """H(θ) and H(θ⁺) − H(θ) over the prompts of E, after η·Ȳ of U."""
    of = model()
    parameters = list(of.parameters())
    ones = torch.ones(sum(p.numel() for p in parameters), dtype=torch.float64)
    twin = Twin(of, parameters, ones, LR, L_MAX, "dr_grpo", "dr_grpo", Prompt.all_of(batch())).measure()
    evaluating = [tuple(q.tokens) for q in twin.of("E")]

    def mean_entropy() -> float:
        return sum(entropy(of, q, weighting) for q in evaluating) / len(evaluating)

    before = mean_entropy()
    step: Tensor = LR * torch.stack([q.Y for q in twin.of("U")]).mean(0)
    with torch.no_grad():
        for parameter, part in zip(parameters, step.split([p.numel() for p in parameters]), strict=True):
            parameter.add_(part.view_as(parameter))
    return before, mean_entropy() - before


@cache
def probed(of: Batch | None = None, **options: Any) -> Report:
    handed = {"batch": of or batch(), "lr": LR, "steps": ("preconditioned",), "device": "cpu"}
    return probe(model(), **(handed | options))


def one(report: Report, code: str) -> Finding:
    (found,) = (f for f in report.findings if f.code == code)
    return found


def rows(report: Report, estimator: str) -> dict[str, RealizedRow]:
    return {r.pairing: r for r in report.realized if r.estimator == estimator}


@pytest.mark.parametrize(("times", "status"), [(0.1, "ok"), (0.12, "warn"), (1.0, "fail")])
def test_a_step_too_large_degenerates_the_weights(times: float, status: str) -> None:
    found = one(probed(lr=times * LR), "STAT001")
    assert found.status == status
    assert ("probe-tui CHECKPOINT --resample" in found.remedy.commands) == (status == "fail")


def test_fresh_responses_cover_the_enumerated_change_and_the_verdict_is_about_them() -> None:
    unaided = probed()
    assert unaided.verdict is not None
    assert unaided.verdict.status == "unreliable"
    report = probed(resample=True)
    row = rows(report, "resample")["held_out"]
    h_before, change = truth()
    assert row.ci95 is not None
    assert row.ci95[0] < change < row.ci95[1]
    assert row.se < 0.2 * abs(change)
    assert row.h_before == pytest.approx(h_before, abs=0.05)
    assert (row.ess, row.ess_fraction, row.khat) == (row.N, 1.0, None)
    assert [u.log_w for u in row.units] == [[]] * len(row.units)
    assert report.verdict is not None
    assert report.verdict.row.estimator == "resample"
    assert report.verdict.status != "unreliable"
    assert report.verdict.measured == row.delta_h
    for code in ("STAT001", "STAT002"):
        assert one(report, code).status in ("ok", "info")
    assert report.self_influence is not None
    assert report.self_influence.estimator == "resample"


def test_a_length_weight_for_each_response_is_followed() -> None:
    by_length = replace(batch(), weighting="per_token")
    row = rows(probed(by_length, resample=True), "resample")["held_out"]
    assert row.ci95 is not None
    assert row.ci95[0] < truth("per_token")[1] < row.ci95[1]
    assert not rows(probed(by_length), "resample")


def test_weights_that_hold_are_left_alone_and_so_is_the_model() -> None:
    of = model()
    before = [p.detach().clone() for p in of.parameters()]
    handed = {"batch": batch(), "steps": ("preconditioned",), "device": "cpu", "resample": True}
    assert not rows(probe(of, lr=0.1 * LR, **handed), "resample")
    assert set(rows(probe(of, lr=LR, **handed), "resample")) == {"held_out", "same_batch"}
    assert all(torch.equal(p, old) for p, old in zip(of.parameters(), before, strict=True))


def test_the_same_seed_gives_the_same_responses() -> None:
    first = rows(probed(resample=True), "resample")["held_out"].delta_h
    again, other = (rows(probed(resample=True, seed=seed), "resample")["held_out"].delta_h for seed in (0, 1))
    assert first == again != other


def without_eos(of: Batch) -> Batch:
    unit = of.units[0]
    group = unit.groups[0]
    cut = Response((1, 1, 1), "", 0.0, terminated=True)
    changed = replace(unit, groups=(replace(group, responses=(cut, *group.responses[1:])),))
    return replace(of, units=(changed, *of.units[1:]))


@pytest.mark.parametrize(
    ("of", "held", "said"),
    [
        (replace(policy(model()), model=nn.Identity()), batch(), "Identity has no generate()"),
        (policy(model()), without_eos(batch()), "other tokens than the model's eos"),
        (
            policy(tiny.model("gpt2", n_positions=5, eos_token_id=EOS)),
            batch(),
            "5 positions, too few for 3 more",
        ),
    ],
    ids=["no generate", "another end", "positions"],
)
def test_it_is_said_why_fresh_responses_can_not_be_sampled(of: Policy, held: Batch, said: str) -> None:
    assert said in obstacle(of, held, [], 1.0)


def test_a_batch_of_another_policy_does_not_tell_the_entropy_before_the_step() -> None:
    other = tiny.model("llama", seed=5, vocab_size=V, eos_token_id=EOS, bos_token_id=None, pad_token_id=None)
    report = probe(other, batch=batch(), lr=LR, steps=("preconditioned",), device="cpu", resample=True)
    assert one(report, "ROLL007").status == "warn"
    assert not rows(report, "resample")
    found = one(report, "STAT001")
    assert found.status == "fail"
    assert "Fresh responses can't stand in here" in found.remedy.text
    assert "ROLL007" in found.remedy.text
    assert not [c for c in found.remedy.commands if "--resample" in c]
