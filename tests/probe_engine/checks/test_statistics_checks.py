"""STAT findings against brute force over the vectors."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest
import tiny
import torch
from oracles.pairs import dot_products
from realized import row
from torch import Tensor

from probe_engine import probe
from probe_engine.checks import statistics as checks
from probe_engine.checks.preconditioner import fallback_scale
from probe_engine.estimators.ustatistics import diagonal_share, one_sided, row_means, u_cross, u_statistic
from probe_engine.model.preconditioner import Preconditioner, preconditioner
from probe_engine.report import Report
from probe_engine.vectors import ParameterVector


def vectors(B: int = 8, P: int = 5, seed: int = 0, shift: float = 1.5) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    X = torch.randn(B, P, generator=generator, dtype=torch.float64) + shift
    return X, X.roll(1, 1) + torch.randn(B, P, generator=generator, dtype=torch.float64)


def concentrated(X: Tensor, PY: Tensor) -> tuple[list[float], list[float]]:
    x, y = (side.abs() / side.abs().sum() for side in one_sided(*dot_products(X, PY)))
    return x.tolist(), y.tolist()


def test_both_one_sided_means_are_u_cross_and_r_their_mean() -> None:
    dots = dot_products(*vectors())
    x, y = one_sided(*dots)
    assert float(x.mean()) == pytest.approx(-u_cross(*dots))
    assert float(y.mean()) == pytest.approx(-u_cross(*dots))
    torch.testing.assert_close(-(x + y) / 2, row_means(*dots))


def test_one_sided_by_brute_force() -> None:
    X, PY = vectors()
    x, y = one_sided(*dot_products(X, PY))
    for n in range(len(X)):
        others = [m for m in range(len(X)) if m != n]
        assert float(x[n]) == pytest.approx(float(X[n] @ PY[others].mean(0)))
        assert float(y[n]) == pytest.approx(float(PY[n] @ X[others].mean(0)))


@pytest.mark.parametrize("side", ["X", "Y"])
def test_an_outlier_is_named_whichever_gradient_is_its(side) -> None:
    """Its row mean r is at most about half of Σ|r|: each of its pairs is also another unit's."""
    X, PY = vectors(B=12)
    (X if side == "X" else PY)[3] *= 200
    ids = [f"u{n}" for n in range(12)]
    r = row_means(*dot_products(X, PY)).abs()
    assert float(r[3] / r.sum()) < 0.55
    found = checks.concentration(ids, *concentrated(X, PY), {id: f"What\nis {id}? " * 9 for id in ids})
    assert found.status == "warn"
    assert found.evidence == {"unit": "u3"}
    assert "unit u3 ('What is u3? What is u3? What is u3? What is u3?…')" in found.message
    assert ("whose entropy moves" if side == "X" else "that is trained on") in found.message


def test_no_outlier_no_alarm() -> None:
    ids = list("abcdefgh")
    for seed in range(20):
        found = checks.concentration(ids, *concentrated(*vectors(seed=seed)), dict.fromkeys(ids, ""))
        assert found.status == "ok", seed
    assert checks.concentration(["a", "b"], [0.0, 0.0], [0.0, 0.0], {}).status == "skip"


def test_near_degeneracy_is_where_pairs_are_noisier_than_units() -> None:
    X, PY = vectors()
    dots, pairs = dot_products(X, PY), X @ PY.T
    estimate = u_statistic(row_means(*dots), 0.1, pairs)
    assert checks.degeneracy(estimate).status == "ok"
    assert estimate.zeta1 is not None
    border = 4 * estimate.zeta1 / 8 * (8 * 7) / 2
    for factor, status in ((0.999, "ok"), (1.001, "warn")):
        changed = msgspec.structs.replace(estimate, zeta2=factor * border)
        assert checks.degeneracy(changed).status == status
    assert checks.degeneracy(msgspec.structs.replace(estimate, zeta2=None)).status == "skip"


def test_a_near_degenerate_interval_is_too_narrow() -> None:
    """Where there is a projection, the batches that STAT005 names are those whose interval misses."""
    generator = torch.Generator().manual_seed(0)
    covered, fired = [], []
    for _ in range(1500):
        X = torch.randn(8, 50, generator=generator, dtype=torch.float64) + 0.3
        PY = torch.randn(8, 50, generator=generator, dtype=torch.float64) + 0.3
        estimate = u_statistic(row_means(*dot_products(X, PY)), 1.0, X @ PY.T)
        low, high = estimate.ci95
        covered.append(low <= 50 * 0.09 <= high)
        fired.append(checks.degeneracy(estimate).status == "warn")
    inside, flags = torch.tensor(covered).double(), torch.tensor(fired)
    assert int(flags.sum()) > 30
    assert float(inside[flags].mean()) < 0.92
    assert float(inside[~flags].mean()) > 0.96


def test_diagonal_share_by_brute_force() -> None:
    X, PY = vectors()
    share = diagonal_share(*dot_products(X, PY))
    assert share == pytest.approx(float((X * PY).sum() / 64 / (X.mean(0) @ PY.mean(0))))
    assert diagonal_share(torch.tensor([1.0, 1.0]), torch.zeros(2), torch.zeros(2)) is None


@pytest.mark.parametrize(("share", "status"), [(0.5, "ok"), (0.51, "info"), (-0.6, "info"), (None, "ok")])
def test_self_influence_at_its_borders(share, status) -> None:
    assert checks.self_influence(share, row(), row(pairing="held_out", delta_h=0.02)).status == status


def test_the_report_carries_sweep_and_self_influence() -> None:
    model = tiny.with_lora(tiny.model("llama"))
    report = probe(model, optimizer=tiny.optimizer(model, lr=1e-5), batch=tiny.batch(sizes=(4,) * 8))
    assert report.sweep is not None
    assert report.sweep.scales == [0.25, 0.5, 1.0, 2.0]
    rows = [
        r for r in report.realized if (r.step, r.estimator) == (report.sweep.step, report.sweep.estimator)
    ]
    taken = next(r for r in rows if r.pairing == "held_out")
    whole = report.sweep.points[2]
    assert whole.delta_h == taken.delta_h
    assert whole.predicted == pytest.approx(taken.predicted, rel=1e-9)
    rows = [r for r in report.realized if (r.step, r.estimator) == (report.sweep.step, "per_decision")]
    same, apart = (next(r for r in rows if r.pairing == pairing) for pairing in ("same_batch", "held_out"))
    assert report.self_influence is not None
    assert report.self_influence.value == pytest.approx(same.delta_h - apart.delta_h, rel=1e-9)
    K = torch.tensor(report.influence.K, dtype=torch.float64)
    assert report.self_influence.diagonal_share == pytest.approx(
        float(K.diagonal().sum() / K.sum()), rel=1e-6
    )
    assert {"STAT004", "STAT005", "STAT006", "STAT007", "STAT008"} <= {f.code for f in report.findings}
    assert said_of(report, "STAT004") == "ok"


def said_of(report: Report, code: str) -> str:
    (found,) = (f for f in report.findings if f.code == code)
    return found.status


class TestFallbackScale:
    POLICY = tiny.policy(tiny.with_lora(tiny.model("llama")))
    NAMES = POLICY.registry.names

    def p(self, *fallbacks: int) -> Preconditioner:
        whole = preconditioner(self.POLICY.registry, self.POLICY.optimizer)
        diagonal = tuple(None if i in fallbacks else d for i, d in enumerate(whole.diagonal))
        return replace(whole, diagonal=diagonal, fallbacks=tuple(self.NAMES[i] for i in fallbacks))

    def py(self, p: Preconditioner, scale: float = 1.0) -> ParameterVector:
        ones = tuple(torch.full_like(x, scale) for x in self.POLICY.registry.parameters)
        return p(ParameterVector(self.POLICY.registry.ids, ones))

    def test_fallbacks_that_stand_still_are_told_with_their_share(self) -> None:
        p = self.p(*range(0, len(self.NAMES), 2))
        found = fallback_scale(p, self.py(p))
        sizes = [x.numel() for x in self.POLICY.registry.parameters]
        assert found.status == "warn"
        assert found.threshold == pytest.approx(sum(sizes[::2]) / sum(sizes))
        assert found.value < 0.01
        assert "stand still" in found.message

    def test_fallbacks_that_drown_the_rest_are_told(self) -> None:
        p = self.p(0)
        vector = self.py(p)
        vector.tensors[0].mul_(1e6)
        found = fallback_scale(p, vector)
        assert found.status == "warn"
        assert found.value > 0.99
        assert "set the step" in found.message

    def test_few_coordinates_matter_little(self) -> None:
        smallest = min(range(len(self.NAMES)), key=lambda i: self.POLICY.registry.parameters[i].numel())
        p = self.p(smallest)
        assert fallback_scale(p, self.py(p)).status == "info"

    def test_none_and_all_have_no_scale_beside_them(self) -> None:
        assert fallback_scale(self.p(), self.py(self.p())).status == "ok"
        everything = self.p(*range(len(self.NAMES)))
        assert fallback_scale(everything, self.py(everything)).status == "skip"
        p = self.p(0)
        assert fallback_scale(p, self.py(p, 0.0)).status == "skip"
