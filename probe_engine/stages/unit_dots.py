"""Dot products of the units' gradients with their sums: from vectors that were kept, or by more passes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice

import torch
from torch import Tensor

from probe_engine.estimators.histogram import histogram
from probe_engine.estimators.on_policy import z_score
from probe_engine.estimators.token_statistics import TokenStatistics
from probe_engine.events import HistogramEvent, Units
from probe_engine.model.next_step import NextStep
from probe_engine.model.pairwise import PairwiseDots
from probe_engine.model.preconditioner import Preconditioner
from probe_engine.model.unit_gradients import Scored, UnitGradients
from probe_engine.model.unit_gradients.received import RaoBlackwellSums
from probe_engine.registry import ParameterRegistry
from probe_engine.report import Histograms, UnitRow
from probe_engine.spec import XForm
from probe_engine.stages import Stage
from probe_engine.stages.contributions import so_far
from probe_engine.stages.measured import ROLES, Sums
from probe_engine.stages.meter import Meter
from probe_engine.stages.own_step import OwnStep
from probe_engine.stages.rows import unit_row
from probe_engine.types import Role, UnitScalars
from probe_engine.vectors import ParameterVector


@dataclass(frozen=True)
class FirstPass:
    """What stays of a unit after its vectors are gone."""

    scored: Scored
    norms: Mapping[XForm, tuple[float, float, float, float]]
    """‖X_u‖, ‖Y_u‖, ‖P Y_u‖, X_u·P Y_u"""
    row: UnitRow

    @classmethod
    def of(cls, scored: Scored, norms: Mapping[XForm, tuple[float, float, float, float]]) -> FirstPass:
        """Of what was just measured."""
        z = z_score(TokenStatistics.joined(scored.tokens))
        x_norm_rb, _, _, x_dot_py_rb = norms.get("rao_blackwell", (None,) * 4)
        row = unit_row(
            scored.objective,
            scored.S,
            *norms["score"],
            x_norm_rb=x_norm_rb,
            x_dot_py_rb=x_dot_py_rb,
            on_policy_z=z,
        )
        return cls(scored, norms, row)

    def with_rao_blackwell(self, x_norm: float, x_py: float) -> FirstPass:
        """With what a later pass found of X of (2b)."""
        _, y_norm, py_norm, _ = self.norms["score"]
        return self.of(self.scored, {**self.norms, "rao_blackwell": (x_norm, y_norm, py_norm, x_py)})

    def scalars(self, form: XForm, x_dots: dict[Role, float], y_dots: dict[Role, float]) -> UnitScalars:
        """With its dot products with the sums of each role."""
        unit = self.scored.objective.unit
        return UnitScalars(unit.id, unit.role, *self.norms[form], x_dots, y_dots)


@dataclass(frozen=True)
class OwnDirections:
    """What the units' gradients are multiplied with for the optimizer's own step, each [P] and lazy."""

    delta: ParameterVector
    """Δθ, for X"""
    slopes: dict[XForm, ParameterVector]
    """∂(X̄·Δθ)/∂Ȳ, for Y"""

    @classmethod
    def of(cls, own: NextStep, x: Mapping[XForm, Sums]) -> OwnDirections:
        """Of a step from U, met by E, whose X sum to these."""
        return cls(own.delta, {form: own.sensitivity(sums.mean(["E"])) for form, sums in x.items()})


@dataclass(frozen=True)
class Dotted:
    """The dot products of the units so far, by one form of X."""

    scalars: list[UnitScalars] = field(default_factory=list)
    own: list[tuple[float, float]] = field(default_factory=list)
    """X_u·Δθ and Y_u·∂(X̄·Δθ)/∂Ȳ, where that step is known"""

    def own_step(self, step: NextStep, mean_x: ParameterVector, limit: float | None) -> OwnStep:
        """What the optimizer's own step does to first order.

        Args:
            step: from U.
            mean_x: X̄ over E.
            limit: what the trainer clips to, as far as known.
        """
        rows = list(zip(self.scalars, self.own, strict=True))
        return OwnStep(
            step,
            step.parts(mean_x),
            x={unit.id: x for unit, (x, _) in rows if unit.role == "E"},
            y={unit.id: y for unit, (_, y) in rows if unit.role == "U"},
            max_grad_norm=limit,
        )


def from_pairs(passed: Sequence[FirstPass], form: XForm, pairs: Tensor) -> list[UnitScalars]:
    """Each unit's dot products with the sums over these units, read off X_u·P Y_v."""
    masks = {r: torch.tensor([f.scored.objective.unit.role == r for f in passed]) for r in ROLES}
    return [
        first.scalars(
            form,
            {r: float(pairs[index][masks[r]].sum()) for r in ROLES},
            {r: float(pairs[:, index][masks[r]].sum()) for r in ROLES},
        )
        for index, first in enumerate(passed)
    ]


def from_kept(
    passed: Sequence[FirstPass],
    form: XForm,
    kept: PairwiseDots,
    along: OwnDirections | None,
    p: Preconditioner,
) -> Dotted:
    """From the vectors of all units."""
    dotted = Dotted(from_pairs(passed, form, kept.matrix(len(passed))))
    if along is not None:
        x_dots, y_dots = kept.with_directions(along.delta, p.inverse(along.slopes[form]))
        dotted.own.extend(zip(x_dots.tolist(), y_dots.tolist(), strict=True))
    return dotted


def second_pass(
    method: UnitGradients,
    passed: Sequence[FirstPass],
    x: Mapping[XForm, Sums],
    py: Sums,
    along: OwnDirections | None,
    p: Preconditioner,
    eta: float | None,
    meter: Meter,
) -> Stage[dict[XForm, Dotted]]:
    """Dot products with P ΣY and P ΣX of each role, and with what the optimizer's own step asks for."""
    forms = list(x)
    x_along = _x_along(py, None if along is None else along.delta)
    y_along = {form: _y_along(form, sums, along, p) for form, sums in x.items()}
    dotted = {form: Dotted() for form in forms}
    contractions = method.contractions(
        [first.scored for first in passed],
        x_along,
        [v for form in forms for v in y_along[form]],
        meter,
        rao_blackwell="rao_blackwell" in forms,
    )
    for first, dots in zip(passed, contractions, strict=True):
        of_y = iter(dots.y)
        for form, x_dots in zip(forms, (dots.x, dots.x_rb), strict=False):
            y_dots = list(islice(of_y, len(x_dots)))
            dotted[form].scalars.append(first.scalars(form, _of_roles(x_dots), _of_roles(y_dots)))
            if along is not None:
                dotted[form].own.append((x_dots[-1], y_dots[-1]))
        if eta is not None:
            yield from grown({form: d.scalars for form, d in dotted.items()}, py.counts, eta)
        yield meter.progress
    return dotted


def rao_blackwell_passes(
    method: UnitGradients,
    registry: ParameterRegistry,
    passed: Sequence[FirstPass],
    score: Dotted,
    py: Sums,
    own: NextStep | None,
    p: Preconditioner,
    eta: float | None,
    meter: Meter,
) -> Stage[tuple[list[FirstPass], Sums, Dotted]]:
    """X of (2b) after that of (2), when ΣX of that is gone: one pass for its sums and its dot products, one
    for Y's with those sums.

    Returns:
        what was passed, with X of (2b); its sums; the dot products.
    """
    units = [first.scored.objective for first in passed]
    x_along = _x_along(py, None if own is None else own.delta)
    sums = RaoBlackwellSums(registry, p, [u.unit.role for u in units], x_along)
    both: list[FirstPass] = []
    for number, _ in enumerate(method.measurements(units, sums, meter, rao_blackwell=True)):
        x_norm, x_py, _ = sums.of(number)
        both.append(passed[number].with_rao_blackwell(x_norm, x_py))
        yield Units(rows=[both[-1].row])
        yield meter.progress
    x = Sums(sums.x, py.counts)
    along = None if own is None else OwnDirections.of(own, {"rao_blackwell": x})
    y_along = _y_along("rao_blackwell", x, along, p)
    dotted = Dotted()
    again = method.contractions([first.scored for first in passed], [], y_along, meter)
    for number, (first, dots) in enumerate(zip(both, again, strict=True)):
        _, _, x_dots = sums.of(number)
        dotted.scalars.append(first.scalars("rao_blackwell", _of_roles(x_dots), _of_roles(dots.y)))
        if own is not None:
            dotted.own.append((x_dots[-1], dots.y[-1]))
        if eta is not None:
            scalars: dict[XForm, list[UnitScalars]] = {
                "score": score.scalars,
                "rao_blackwell": dotted.scalars,
            }
            yield from grown(scalars, py.counts, eta)
        yield meter.progress
    return both, x, dotted


def _x_along(py: Sums, delta: ParameterVector | None) -> list[ParameterVector]:
    return [*(py.by_role[r] for r in ROLES), *([] if delta is None else [delta])]


def _y_along(form: XForm, x: Sums, along: OwnDirections | None, p: Preconditioner) -> list[ParameterVector]:
    return [*(p(x.by_role[r]) for r in ROLES), *([] if along is None else [along.slopes[form]])]


def _of_roles(dots: Sequence[float]) -> dict[Role, float]:
    """The first of them are with the sums of each role."""
    return dict(zip(ROLES, dots, strict=False))


def grown(
    scalars: Mapping[XForm, Sequence[UnitScalars]], sizes: Mapping[Role, int], eta: float
) -> Stage[None]:
    """What a screen shows while the measurement goes on: contributions and their histograms so far."""
    contributions = so_far(scalars, sizes, eta)
    yield contributions
    shown = {name: getattr(contributions, name) for name in ("s", "r", "s_rb", "r_rb")}
    known = {name: [v for v in values if v is not None] for name, values in shown.items()}
    yield HistogramEvent(
        histograms=Histograms(
            **{name: histogram(torch.tensor(v, dtype=torch.float64)) for name, v in known.items() if v}
        )
    )
