"""X of (2b) in the whole probe: unbiased, quieter, and in every estimate what a naive twin makes of it."""

from __future__ import annotations

import itertools
import math
import statistics
from typing import Any

import pytest
import tiny
import torch
from oracles.twin import Prompt, Twin
from torch import Tensor, nn

from probe_engine import probe
from probe_engine.errors import UsageError
from probe_engine.model.unit_gradients import Fused, UnitObjective, objectives
from probe_engine.model.unit_gradients.received import UnitVectors
from probe_engine.registry import ParameterRegistry
from probe_engine.report import Report
from probe_engine.types import Batch, Group, Response, Unit
from probe_engine.vectors import ParameterVector

L_MAX = 7
LR = 1e-3
WAYS: dict[str, dict[str, Any]] = {
    "fused": {},
    "large units": {"micro_batch": 2},
    "loop": {"method": "loop"},
    "loop in parts": {"method": "loop", "micro_batch": 2},
    "second pass": {"memory_budget": "1B"},
    "loop, second pass": {"method": "loop", "memory_budget": "1B"},
    "alpha": {"method": "alpha"},
    "alpha-vjp": {"method": "alpha-vjp", "micro_batch": 2},
}


def model() -> nn.Module:
    return tiny.cast(tiny.with_lora(tiny.model("llama")), torch.float64)


def trainable(of: nn.Module) -> list[nn.Parameter]:
    return [p for p in of.parameters() if p.requires_grad]


def probed(**options: Any) -> Report:
    live = model()
    handed = {"optimizer": tiny.optimizer(live, lr=LR), "batch": tiny.batch(max_length=L_MAX)}
    return probe(live, dtype="float64", device="cpu", **(handed | options))


# Unbiased.

EOS, VOCABULARY, LONGEST = 0, 3, 3
LISTED = [
    *((*body, EOS) for length in range(LONGEST) for body in itertools.product((1, 2), repeat=length)),
    *itertools.product((1, 2), repeat=LONGEST),
]
"""Every response: ended by the eos, or cut at the maximal length."""
PROMPT = (1, 2)


def flat(vector: ParameterVector) -> Tensor:
    return torch.cat([t.flatten() for t in vector.tensors if t is not None])


def pairs() -> list[UnitObjective]:
    """A group of two for every pair of responses."""
    units = []
    for index, pair in enumerate(itertools.product(LISTED, repeat=2)):
        responses = tuple(Response(tokens=tokens, text="", advantage=0.0) for tokens in pair)
        group = Group(id=str(index), text="", tokens=PROMPT, responses=responses)
        units.append(Unit(id=group.id, role="E", groups=(group,)))
    return objectives(Batch(tuple(units), LONGEST, "option", "sequence", "dr_grpo"))


def test_over_all_responses_its_mean_is_the_gradient_of_the_entropy_and_its_spread_the_smaller() -> None:
    listed = tiny.model("llama", dtype=torch.float64, vocab_size=VOCABULARY)
    registry = ParameterRegistry.of(listed)

    def log_prob(tokens: tuple[int, ...]) -> Tensor:
        ell = listed(torch.tensor([PROMPT + tokens])).logits[0, len(PROMPT) - 1 : -1].log_softmax(-1)
        return ell[torch.arange(len(tokens)), list(tokens)].sum()

    S = torch.stack([log_prob(tokens) for tokens in LISTED])
    assert float(S.detach().exp().sum()) == pytest.approx(1, abs=1e-12)
    gradient = torch.autograd.grad(-(S.exp() * S).sum(), registry.parameters)
    exact = torch.cat([g.flatten() for g in gradient])

    received = UnitVectors(registry)
    units = pairs()
    list(Fused(listed, registry, 64).measurements(units, received, rao_blackwell=True))
    chances = torch.outer(S.detach().exp(), S.detach().exp()).flatten()
    forms = {
        "score": torch.stack([flat(received.of(n)[0]) for n in range(len(units))]),
        "rao_blackwell": torch.stack([flat(received.rao_blackwell(n)) for n in range(len(units))]),
    }
    spread = {}
    for form, X in forms.items():
        torch.testing.assert_close(chances @ X, exact, rtol=1e-12, atol=1e-12)
        spread[form] = float(chances @ (X - exact).square().sum(1))
    assert spread["rao_blackwell"] < spread["score"]


# What a naive twin makes of it.


def rao_blackwell(twin: Twin, q: Prompt) -> Tensor:
    """X_n of (2b), one unpadded response at a time."""
    entropies: list[list[Tensor]] = []
    log_probs: list[list[Tensor]] = []
    for y in q.responses:
        logits = twin.model(torch.tensor([q.tokens + y])).logits[0]
        ell = [torch.log_softmax(logits[len(q.tokens) - 1 + t], -1) for t in range(len(y))]
        entropies.append([-(e.exp() * e).sum() for e in ell])
        log_probs.append([e[token] for e, token in zip(ell, y, strict=True)])
    G, longest = len(q.responses), max(map(len, q.responses))

    def h(g: int, t: int) -> float:
        return float(entropies[g][t].detach()) if t < len(entropies[g]) else 0.0

    total = torch.zeros((), dtype=torch.float64)
    for g, y in enumerate(q.responses):
        for t in range(len(y)):
            to_come = sum(
                h(g, s) - sum(h(other, s) for other in range(G) if other != g) / (G - 1)
                for s in range(t + 1, longest)
            )
            total = total + entropies[g][t] + to_come * log_probs[g][t]
    return twin.gradient(total) * twin.lam(q.responses[0]) / G


@pytest.fixture(scope="module")
def twin() -> Twin:
    """With X of (2b) in the place of X."""
    of = model()
    parameters = trainable(of)
    state = tiny.optimizer(of).state
    p = torch.cat(
        [(1 / ((state[w]["exp_avg_sq"] / (1 - 0.99**5)).sqrt() + 1e-8)).flatten() for w in parameters]
    )
    prompts = Prompt.all_of(tiny.batch(max_length=L_MAX))
    made = Twin(of, parameters, p, LR, L_MAX, "dr_grpo", "dr_grpo", prompts).measure()
    for q in made.prompts:
        q.X = rao_blackwell(made, q)
    return made


@pytest.mark.parametrize("way", WAYS)
def test_the_estimates_are_those_of_the_units_one_by_one(twin: Twin, way: str) -> None:
    report = probed(**WAYS[way])
    ours = report.estimates.rao_blackwell
    assert ours is not None
    assert ours.u_statistic is not None
    assert ours.split is not None
    for name, value in twin.u_statistic().items():
        if name != "zeta2" or ours.u_statistic.zeta2 is not None:
            assert getattr(ours.u_statistic, name) == pytest.approx(value, rel=1e-8)
    for name, value in twin.split().items():
        assert getattr(ours.split, name) == pytest.approx(value, rel=1e-8)
    s, t, r = twin.s(), twin.t(), twin.r()
    for unit in report.units:
        assert unit.s_rb == (pytest.approx(s[unit.id], rel=1e-8) if unit.role == "E" else None)
        assert unit.t_rb == (pytest.approx(t[unit.id], rel=1e-8) if unit.role == "U" else None)
        assert unit.r_rb == pytest.approx(r[unit.id], rel=1e-8)
        assert unit.contribution_r_rb == pytest.approx(-LR * r[unit.id], rel=1e-8)


def test_the_influence_matrix_is_that_of_the_units_one_by_one(twin: Twin) -> None:
    found = probed().influence
    assert found is not None
    assert found.K_rb is not None
    expected = [[LR * float(u.X @ v.PY) for v in twin.prompts] for u in twin.prompts]
    torch.testing.assert_close(
        torch.tensor(found.K_rb, dtype=torch.float64), torch.tensor(expected, dtype=torch.float64)
    )


def stepped(ascent: Tensor) -> Tensor:
    """Δθ of torch's own step on −Ȳ, flat."""
    fresh = model()
    taken, parameters = tiny.optimizer(fresh, lr=LR), trainable(fresh)
    before = torch.cat([p.detach().flatten() for p in parameters])
    for p, part in zip(parameters, ascent.split([p.numel() for p in parameters]), strict=True):
        p.grad = -part.reshape(p.shape).clone()
    taken.step()
    return torch.cat([p.detach().flatten() for p in parameters]) - before


@pytest.mark.parametrize("way", ["fused", "second pass"])
def test_the_optimizers_own_step_moves_it_as_differences_say(twin: Twin, way: str) -> None:
    ours = probed(**WAYS[way]).estimates.rao_blackwell
    assert ours is not None
    assert ours.adamw is not None
    e, u = twin.of("E"), twin.of("U")
    y_bar = torch.stack([q.Y for q in u]).mean(0)
    delta = stepped(y_bar)
    x = [float(q.X @ delta) for q in e]
    x_bar, epsilon = torch.stack([q.X for q in e]).mean(0), 1e-5

    def slope(direction: Tensor) -> float:
        ahead, behind = (float(x_bar @ stepped(y_bar + s * epsilon * direction)) for s in (1, -1))
        return (ahead - behind) / (2 * epsilon)

    y = [slope(q.Y) for q in u]
    assert ours.adamw.delta_h1 == pytest.approx(statistics.mean(x), rel=1e-6)
    se = math.sqrt(statistics.variance(x) / len(x) + statistics.variance(y) / len(y))
    assert ours.adamw.se == pytest.approx(se, rel=1e-4)
    parts = ours.adamw.parts
    whole = math.fsum((parts.gradient, parts.clipping, parts.momentum, parts.weight_decay))
    assert whole == pytest.approx(ours.adamw.delta_h1, rel=1e-6)


# Which of the two is the headline.


def statuses(report: Report, code: str) -> list[str]:
    return [f.status for f in report.findings if f.code == code]


def judged_by(report: Report) -> str:
    assert report.verdict is not None
    return report.verdict.row.x_estimator


def test_of_both_the_one_with_the_smaller_error_is_the_headline_and_it_is_named() -> None:
    report = probed()
    estimates = report.estimates
    assert estimates.adamw is not None
    assert estimates.headline.adamw is not None
    assert estimates.rao_blackwell is not None
    assert estimates.rao_blackwell.adamw is not None
    assert report.method is not None
    assert report.verdict is not None
    quieter = estimates.rao_blackwell.adamw.se < estimates.adamw.se
    assert (estimates.x_estimator == judged_by(report) == "rao_blackwell") == quieter
    assert report.verdict.predicted == estimates.headline.adamw.delta_h1
    assert ("Rao-Blackwell" in report.verdict.reason) == quieter
    assert report.method.x_estimator == "both"
    assert statuses(report, "STAT009") == ["ok"]


def test_the_verdict_s_difference_is_that_of_the_form_that_predicted() -> None:
    for form in ("score", "rao_blackwell"):
        report = probed(x_estimator=form)
        estimates = report.estimates
        predicted = estimates.headline.adamw
        assert estimates.x_estimator == judged_by(report) == form
        assert report.verdict is not None
        assert predicted is not None
        assert report.verdict.predicted == predicted.delta_h1
        (row,) = (
            r
            for r in report.realized
            if (r.step, r.pairing, r.estimator) == ("adamw", "held_out", "per_decision")
        )
        assert row.predicted == predicted.delta_h1


def test_per_decision_and_it_have_the_same_first_order_on_the_same_samples() -> None:
    """So their difference is curvature alone: it vanishes with the step, prompt by prompt."""
    gaps = []
    for lr in (1e-5, 1e-6):
        report = probed(x_estimator="rao_blackwell", steps=("preconditioned",), lr=lr)
        (row,) = (r for r in report.realized if (r.pairing, r.estimator) == ("held_out", "per_decision"))
        first_order = {unit.id: unit.contribution_s_rb for unit in report.units}
        gaps.append(max(abs(unit.d / first_order[unit.id] - 1) for unit in row.units))
    assert gaps[1] < gaps[0] / 5


def test_the_score_form_alone_costs_no_further_pass() -> None:
    report = probed(x_estimator="score")
    both = probed()
    assert report.estimates.rao_blackwell is None
    assert statuses(report, "STAT009") == ["skip"]
    assert all(unit.s_rb is None and unit.r_rb is None and unit.t_rb is None for unit in report.units)
    assert report.histograms.r_rb is None
    assert report.estimates.u_statistic == both.estimates.u_statistic
    assert report.forecast is not None
    assert both.forecast is not None
    for name in ("fused", "loop"):
        alone, together = (r.forecast.predicted[name] for r in (report, both))
        assert alone.flops < together.flops
        assert alone.memory < together.memory


def test_where_lambda_differs_it_is_said_that_it_is_not_there() -> None:
    report = probed(batch=tiny.batch(weighting="per_token", max_length=L_MAX))
    assert report.estimates.rao_blackwell is None
    assert statuses(report, "STAT009") == ["info"]
    assert judged_by(report) == "score"
    assert report.method is not None
    assert report.method.x_estimator == "score"
    with pytest.raises(UsageError, match="needs one length weight"):
        probed(x_estimator="rao_blackwell", weighting="per_token")
