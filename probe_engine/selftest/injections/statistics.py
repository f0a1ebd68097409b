"""STAT, injected."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from probe_engine.api import probe
from probe_engine.report import Report
from probe_engine.selftest.injection import Injection
from probe_engine.selftest.lab import Lab, Objects


def _probed(of: Objects, **options: Any) -> Report:
    return probe(of.model, optimizer=of.optimizer, batch=of.batch, device="cpu", **options)


def _at(lab: Lab, lr: float) -> Report:
    return probe(lab.checkpoint(), device="cpu", lr=lr)


def _influence(of: Objects) -> Tensor:
    """K [B, B] of the headline, prompts in the batch's order; training on a prompt scales with its
    advantages."""
    report = _probed(of)
    found = report.influence
    assert found is not None, "a run this small keeps its unit vectors"
    headline = found.K if report.estimates.x_estimator == "score" else found.K_rb
    return torch.tensor(headline, dtype=torch.float64)


def _by_prompt(of: Objects, factors: Tensor) -> None:
    """Multiplies the advantages of each prompt's responses."""
    advantages = of.batch["advantages"]
    of.batch["advantages"] = advantages * factors.repeat_interleave(len(advantages) // len(factors)).float()


def _advantages_of_chance(lab: Lab) -> Report:
    of = lab.objects()
    of.batch["advantages"] = torch.randn(
        len(of.batch["advantages"]), generator=torch.Generator().manual_seed(0)
    )
    return _probed(of)


def _bent(lab: Lab) -> Report:
    of = lab.objects()
    of.batch.update(lab.batch(prompts=32, seed=6))
    return _probed(of, lr=5e-3, steps=("adamw",))


def _units_alike_and_pairs_not(lab: Lab) -> Report:
    """Factors of the prompts' advantages for which the row means (7) are the same, so that ζ̂₁ is 0.

    With a factor f_v for each prompt, r = −½( offdiag(K)·f + f·Σ_{m≠n} K[m,n] )/(B−1) is linear in f.
    """
    of = lab.objects()
    K = _influence(of)
    apart = K - K.diagonal().diag()
    linear = apart + apart.sum(0).diag()
    *_, right = torch.linalg.svd(linear - linear.mean(0))
    _by_prompt(of, right[-1] / right[-1].abs().max())
    return _probed(of)


def loud_prompt(lab: Lab) -> Objects:
    """The prompt that others feel most, with its rewards on another scale."""
    of = lab.objects()
    K = _influence(of)
    factors = torch.ones(len(K))
    factors[(K.sum(0) - K.diagonal()).abs().argmax()] = 8.0
    _by_prompt(of, factors)
    return of


def _half_without_state(lab: Lab) -> Report:
    of = lab.objects()
    for parameter in list(of.optimizer.state)[::2]:
        del of.optimizer.state[parameter]
    return _probed(of)


def _few_prompts(lab: Lab) -> Report:
    of = lab.objects()
    rows = 8 * len(of.batch["advantages"]) // 24
    of.batch.update({name: tensor[:rows] for name, tensor in of.batch.items()})
    return _probed(of)


INJECTIONS: tuple[Injection, ...] = (
    Injection("STAT001", "a learning rate a thousand times too large", lambda lab: _at(lab, 0.1)),
    Injection("STAT002", "a learning rate fifty times too large", lambda lab: _at(lab, 5e-3)),
    Injection("STAT003", "advantages drawn by chance", _advantages_of_chance),
    Injection("STAT004", "a step so long that entropy bends", _bent),
    Injection("STAT005", "advantages that make units alike and pairs not", _units_alike_and_pairs_not),
    Injection(
        "STAT006", "one prompt's rewards on another scale", lambda lab: _probed(loud_prompt(lab), lr=1e-4)
    ),
    Injection(
        "STAT007", "every second parameter without Adam state", _half_without_state, besides=("OPT004",)
    ),
    Injection("STAT008", "eight prompts", _few_prompts),
    Injection(
        "STAT009",
        "a length weight for each length",
        lambda lab: _probed(lab.objects(), weighting="per_token"),
    ),
)
