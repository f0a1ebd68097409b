"""Measure: X_u, Y_u and every dot product of them that the estimators need."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import msgspec
import torch
from torch import Tensor

from probe_engine.checks import gradient, preconditioner
from probe_engine.checks.mapping import order_in_question, own_states
from probe_engine.checks.optimizer import own_step_known
from probe_engine.errors import ProbeError
from probe_engine.estimators.histogram import histogram
from probe_engine.estimators.mapping import GradientSquares, mapping_correlation
from probe_engine.estimators.on_policy import z_score
from probe_engine.estimators.token_statistics import TokenStatistics
from probe_engine.events import FindingEvent, HistogramEvent, Part, Units
from probe_engine.model.checkpointing import recomputing
from probe_engine.model.next_step import NextStep
from probe_engine.model.pairwise import PairwiseDots
from probe_engine.model.preconditioner import Preconditioner, stale_ratio
from probe_engine.model.sharding import is_sharded
from probe_engine.model.unit_gradients import Scored, UnitGradients, UnitObjective
from probe_engine.model.unit_gradients.received import UnitSums
from probe_engine.registry import ParameterRegistry, ParameterVector, wide
from probe_engine.report import GradientFlow, Histograms, MethodInfo, UnitRow
from probe_engine.spec import StepKind
from probe_engine.stages import Stage
from probe_engine.stages.contributions import so_far
from probe_engine.stages.meter import Meter
from probe_engine.stages.on_policy import sampled_from_policy
from probe_engine.stages.own_step import OwnStep, directions, is_known, max_grad_norm, step_on
from probe_engine.stages.rows import unit_row
from probe_engine.types import OptimizerState, Policy, Role, UnitScalars

ROLES: tuple[Role, Role] = ("E", "U")
CHEAP_VECTORS = 10_000_000
"""Numbers in all kept X below which pairwise products are brought up to date with every unit."""


@dataclass(frozen=True)
class Sums:
    """ΣX, ΣY and P ΣY over the units of each role, each [P]."""

    x: dict[Role, ParameterVector]
    y: dict[Role, ParameterVector]
    py: dict[Role, ParameterVector]
    counts: dict[Role, int]

    def mean_x(self, roles: Sequence[Role]) -> ParameterVector:
        """X̄ over the units of these roles."""
        return self._mean(self.x, roles)

    def mean_y(self, roles: Sequence[Role]) -> ParameterVector:
        """Ȳ over the units of these roles."""
        return self._mean(self.y, roles)

    def mean_py(self, roles: Sequence[Role]) -> ParameterVector:
        """P Ȳ over the units of these roles."""
        return self._mean(self.py, roles)

    def _mean(self, sums: Mapping[Role, ParameterVector], roles: Sequence[Role]) -> ParameterVector:
        return _mean([sums[r] for r in roles], sum(self.counts[r] for r in roles))


@dataclass(frozen=True)
class Measured:
    """All that the estimates need; parameter-length vectors only as sums."""

    objectives: tuple[UnitObjective, ...]
    S: tuple[Tensor, ...]
    """of each unit, [N]"""
    tokens: tuple[tuple[TokenStatistics, ...], ...]
    """of each unit's responses"""
    scalars: tuple[UnitScalars, ...]
    pairs: Tensor | None
    """X_u·P Y_v, [B, B] without η, where the vectors were kept"""
    sums: Sums
    rows: tuple[UnitRow, ...]
    stale_ratio: float
    own: OwnStep | None
    """The optimizer's own step from U, where it is asked for and known, and something is held out."""


def refuse_shards(registry: ParameterRegistry) -> None:
    """Dot products of units need whole parameters.

    Raises:
        ProbeError: the parameters are shards (GRAD014).
    """
    if is_sharded(registry.parameters):
        raise ProbeError(
            "expected whole parameters to measure dot products of units with, they are shards (DTensor): "
            "whether gradient flows can be said here, how the entropy changes can not",
            "Save a checkpoint with whole weights and probe that; doctor(model, …) works on the live model.",
            code="GRAD014",
            commands=("probe-tui CHECKPOINT",),
            exit_code=1,
        )


def measure(
    policy: Policy,
    units: Sequence[UnitObjective],
    method: UnitGradients,
    p: Preconditioner,
    panel: GradientFlow,
    eta: float | None,
    memory_budget: int,
    policy_temperature: float = 1.0,
    steps: Collection[StepKind] = (),
) -> Stage[Measured]:
    """First pass: norms, diagonal, sums. Then the dot products with the sums: from kept vectors where
    they fit into the budget, else by a second pass.

    Args:
        panel: the gradient-flow panel so far; its sums become those of the whole batch.
        eta: the learning rate, for the contributions so far; None where it is not known.
        memory_budget: bytes for kept X_u and P Y_u.
        policy_temperature: by which the method divides logits.
        steps: with `adamw`, the units' dot products with the optimizer's own step are taken as well.
    """
    registry = policy.registry
    vector_bytes = sum(v.numel() * wide(v.dtype).itemsize for v in registry.parameters)
    needed = 2 * len(units) * vector_bytes
    keep = method.keeps_vectors and needed <= memory_budget
    recomputed = recomputing(policy.model)
    yield Part(method=_info(method, keep, recomputed))
    meter = Meter("measure", sum(u.tokens for u in units) * (1 if keep else 2))

    kept = PairwiseDots()
    every = _growth_step(len(units), registry.numel)
    squares = GradientSquares(len(registry)) if order_in_question(policy.optimizer) else None
    unit_sums = UnitSums(registry, p, [u.unit.role for u in units], keep=keep, squares=squares)
    passed: list[_FirstPass] = []
    for number, scored in enumerate(method.measurements(units, unit_sums, meter)):
        first = _first_pass(scored, unit_sums.norms(number))
        passed.append(first)
        yield Units(rows=[first.row])
        if keep:
            kept.add(*unit_sums.kept(number))
            if len(kept) % every == 0 and eta is not None:
                yield from _grown(_from_pairs(passed, kept.matrix()), _sizes(passed), eta)
        yield meter.progress

    sums = _sums(unit_sums.x, unit_sums.y, p, units)
    pairs = kept.matrix() if keep else None
    scalars = [] if pairs is None else _from_pairs(passed, pairs)
    mean_y = sums.mean_y(ROLES)
    if "adamw" in steps:
        yield FindingEvent(
            finding=own_step_known(policy.optimizer, registry, max_grad_norm(policy), mean_y.norm())
        )
    own = step_on(policy, sums.mean_y(["U"])) if _held_out(policy, steps, sums) else None
    toward = None if own is None else directions(own, sums.mean_x(["E"]))
    own_dots: list[tuple[float, float]] = []
    if pairs is not None and toward is not None:
        x_dots, y_dots = kept.with_directions(toward.x, p.inverse(toward.y))
        own_dots = list(zip(x_dots.tolist(), y_dots.tolist(), strict=True))
    if pairs is None:
        x_along, y_along = [sums.py[r] for r in ROLES], [p(sums.x[r]) for r in ROLES]
        if toward is not None:
            x_along, y_along = [*x_along, toward.x], [*y_along, toward.y]
        dots = method.contractions([first.scored for first in passed], x_along, y_along, meter)
        for first, (x_list, y_list) in zip(passed, dots, strict=True):
            scalars.append(first.scalars(_of_roles(x_list), _of_roles(y_list)))
            if toward is not None:
                own_dots.append((x_list[-1], y_list[-1]))
            if eta is not None:
                yield from _grown(scalars, sums.counts, eta)
            yield meter.progress
    yield Part(method=_info(method, keep, recomputed))
    yield from sampled_from_policy(units, [first.scored.tokens for first in passed], policy_temperature)

    ratio = stale_ratio(registry, policy.optimizer, p, mean_y)
    yield FindingEvent(finding=preconditioner.stale(ratio))
    x, y, py = (_mean([v[r] for r in ROLES], 1) for v in (sums.x, sums.y, sums.py))
    yield FindingEvent(finding=preconditioner.fallback_scale(p, py))
    finite = gradient.finite({"ΣX": x, "ΣY": y, "ΣP·Y": py}, registry)
    order = own_states(policy.optimizer, registry, squares)
    # Of the few units that `flow` looked at all may have been finite, and told little of the order.
    for found in (finite, order):
        if found.status in ("warn", "fail"):
            yield FindingEvent(finding=found)
    yield Part(
        gradient_flow=msgspec.structs.replace(
            _whole_batch(panel, x, y, py),
            stale_ratio=ratio,
            mapping_correlation=_mapping_correlation(registry, policy.optimizer, mean_y),
        )
    )
    return Measured(
        tuple(units),
        tuple(f.scored.S for f in passed),
        tuple(f.scored.tokens for f in passed),
        tuple(scalars),
        pairs,
        sums,
        tuple(f.row for f in passed),
        ratio,
        None if own is None else _own_step(own, sums, scalars, own_dots, max_grad_norm(policy)),
    )


def _held_out(policy: Policy, steps: Collection[StepKind], sums: Sums) -> bool:
    """Whether U makes a step of the optimizer's own for E to meet."""
    return "adamw" in steps and is_known(policy) and all(sums.counts[r] for r in ROLES)


def _own_step(
    step: NextStep,
    sums: Sums,
    scalars: Sequence[UnitScalars],
    dots: Sequence[tuple[float, float]],
    limit: float | None,
) -> OwnStep:
    rows = list(zip(scalars, dots, strict=True))
    return OwnStep(
        step,
        step.parts(sums.mean_x(["E"])),
        x={unit.id: x for unit, (x, _) in rows if unit.role == "E"},
        y={unit.id: y for unit, (_, y) in rows if unit.role == "U"},
        max_grad_norm=limit,
    )


def _of_roles(dots: Sequence[float]) -> dict[Role, float]:
    """The first of them are with the sums of each role."""
    return dict(zip(ROLES, dots, strict=False))


@dataclass(frozen=True)
class _FirstPass:
    """What stays of a unit after its vectors are gone."""

    scored: Scored
    norms: tuple[float, float, float, float]
    """‖X_u‖, ‖Y_u‖, ‖P Y_u‖, X_u·P Y_u"""
    row: UnitRow

    def scalars(self, x_dots: dict[Role, float], y_dots: dict[Role, float]) -> UnitScalars:
        unit = self.scored.objective.unit
        return UnitScalars(unit.id, unit.role, *self.norms, x_dots, y_dots)


def _info(method: UnitGradients, keep: bool, recomputed: int) -> MethodInfo:
    return MethodInfo(
        name=method.name,
        x_estimator="score",
        passes=1 if keep else 2,
        vectors_kept=keep,
        fallback_parameters=method.fallback_parameters,
        attention=method.attention,
        checkpointed_layers=recomputed,
    )


def _first_pass(scored: Scored, norms: tuple[float, float, float, float]) -> _FirstPass:
    z = z_score(TokenStatistics.joined(scored.tokens))
    row = unit_row(scored.objective, scored.S, *norms, on_policy_z=z)
    return _FirstPass(scored, norms, row)


def _sums(
    x: dict[Role, ParameterVector],
    y: dict[Role, ParameterVector],
    p: Preconditioner,
    units: Sequence[UnitObjective],
) -> Sums:
    return Sums(
        x,
        y,
        {r: p(y[r]) for r in ROLES},
        {r: sum(u.unit.role == r for u in units) for r in ROLES},
    )


def _from_pairs(passed: Sequence[_FirstPass], pairs: Tensor) -> list[UnitScalars]:
    """Each unit's dot products with the sums over these units, read off X_u·P Y_v."""
    masks = {r: torch.tensor([f.scored.objective.unit.role == r for f in passed]) for r in ROLES}
    return [
        first.scalars(
            {r: float(pairs[index][masks[r]].sum()) for r in ROLES},
            {r: float(pairs[:, index][masks[r]].sum()) for r in ROLES},
        )
        for index, first in enumerate(passed)
    ]


def _grown(scalars: Sequence[UnitScalars], sizes: Mapping[Role, int], eta: float) -> Stage[None]:
    """What a screen shows while the measurement goes on: contributions and their histograms so far."""
    contributions = so_far(scalars, sizes, eta)
    yield contributions
    s, r = ([v for v in values if v is not None] for values in (contributions.s, contributions.r))
    yield HistogramEvent(
        histograms=Histograms(
            s=histogram(torch.tensor(s, dtype=torch.float64)) if s else None,
            r=histogram(torch.tensor(r, dtype=torch.float64)) if r else None,
        )
    )


def _sizes(passed: Sequence[_FirstPass]) -> dict[Role, int]:
    return {r: sum(f.scored.objective.unit.role == r for f in passed) for r in ROLES}


def _growth_step(units: int, parameters: int) -> int:
    """Units between two updates of the pairwise products: 1 where vectors are short, else an eighth."""
    return 1 if units * parameters <= CHEAP_VECTORS else max(1, units // 8)


def _mean(vectors: Sequence[ParameterVector], count: int) -> ParameterVector:
    """(Σ vectors)/count; a parameter that none of them has stays None."""
    tensors = []
    for parts in zip(*(v.tensors for v in vectors), strict=True):
        present = [t for t in parts if t is not None]
        tensors.append(torch.stack(present).sum(0) / max(count, 1) if present else None)
    return ParameterVector(vectors[0].ids, tuple(tensors))


def _whole_batch(
    panel: GradientFlow, x: ParameterVector, y: ParameterVector, py: ParameterVector
) -> GradientFlow:
    return msgspec.structs.replace(
        panel,
        x_non_none=x.non_none,
        x_non_zero=x.non_zero,
        y_non_none=y.non_none,
        y_non_zero=y.non_zero,
        sum_x_norm=x.norm(),
        sum_y_norm=y.norm(),
        sum_py_norm=py.norm(),
    )


def _mapping_correlation(
    registry: ParameterRegistry, state: OptimizerState, gradient: ParameterVector
) -> float | None:
    pairs = [
        (state.moments[name].exp_avg_sq, fresh)
        for (name, _), fresh in zip(registry, gradient.tensors, strict=True)
        if fresh is not None and name in state.moments
    ]
    return mapping_correlation([v for v, _ in pairs], [g for _, g in pairs])
