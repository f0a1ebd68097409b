"""Measure: X_u, Y_u and every dot product of them that the estimators need."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import torch
from torch import Tensor

from probe_engine.checks import preconditioner as checks
from probe_engine.estimators.mapping import mapping_correlation
from probe_engine.events import FindingEvent, Part, Progress, Units
from probe_engine.model.preconditioner import Preconditioner, stale_ratio
from probe_engine.model.unit_gradients import Measurement, UnitGradients, UnitObjective
from probe_engine.model.unit_gradients.loop import VectorSum
from probe_engine.registry import ParameterRegistry, ParameterVector, wide
from probe_engine.report import GradientFlow, MethodInfo, UnitRow
from probe_engine.stages import Stage
from probe_engine.stages.rows import unit_row
from probe_engine.types import OptimizerState, Policy, Role, UnitScalars

ROLES: tuple[Role, Role] = ("E", "U")


@dataclass(frozen=True)
class Sums:
    """ΣX, ΣY and P ΣY over the units of each role, each [P]."""

    x: dict[Role, ParameterVector]
    y: dict[Role, ParameterVector]
    py: dict[Role, ParameterVector]
    counts: dict[Role, int]

    def mean_py(self, roles: Sequence[Role]) -> ParameterVector:
        """P Ȳ over the units of these roles."""
        return _mean([self.py[r] for r in roles], sum(self.counts[r] for r in roles))


@dataclass(frozen=True)
class Measured:
    """All that the estimates need; parameter-length vectors only as sums."""

    objectives: tuple[UnitObjective, ...]
    S: tuple[Tensor, ...]
    """of each unit, [N]"""
    log_probs: tuple[tuple[Tensor, ...], ...]
    """of each unit's responses, by token"""
    scalars: tuple[UnitScalars, ...]
    pairs: Tensor | None
    """X_u·P Y_v, [B, B] without η, where the vectors were kept"""
    sums: Sums
    rows: tuple[UnitRow, ...]
    stale_ratio: float


def measure(
    policy: Policy,
    units: Sequence[UnitObjective],
    method: UnitGradients,
    p: Preconditioner,
    panel: GradientFlow,
    memory_budget: int,
) -> Stage[Measured]:
    """First pass: norms, diagonal, sums. Then the dot products with the sums: from kept vectors where
    they fit into the budget, else by a second pass.

    Args:
        panel: the gradient-flow panel so far; its sums become those of the whole batch.
        memory_budget: bytes for kept X_u and P Y_u.
    """
    registry = policy.registry
    vector_bytes = sum(v.numel() * wide(v.dtype).itemsize for v in registry.parameters)
    needed = 2 * len(units) * vector_bytes
    keep = method.keeps_vectors and needed <= memory_budget
    yield Part(
        method=MethodInfo(
            name=method.name,
            x_estimator="score",
            passes=1 if keep else 2,
            vectors_kept=keep,
            fallback_parameters=0,
            attention=method.attention,
        )
    )
    total = sum(u.tokens for u in units) * (1 if keep else 2)
    done = 0

    sum_x = {role: VectorSum(registry) for role in ROLES}
    sum_y = {role: VectorSum(registry) for role in ROLES}
    kept: list[tuple[ParameterVector, ParameterVector]] = []
    passed: list[_FirstPass] = []
    for objective in units:
        measured = method.measure(objective)
        role = objective.unit.role
        sum_x[role].add(measured.x)
        sum_y[role].add(measured.y)
        py = p(measured.y)
        if keep:
            kept.append((measured.x, py))
        first = _first_pass(measured, py)
        passed.append(first)
        done += objective.tokens
        yield Units(rows=[first.row])
        yield Progress(stage="measure", done=done, total=total)

    sums = _sums(sum_x, sum_y, p, units)
    pairs = _gram([x for x, _ in kept], [y for _, y in kept]) if keep else None
    scalars: list[UnitScalars] = []
    for index, first in enumerate(passed):
        if pairs is not None:
            x_dots = {r: _over(pairs[index], units, r) for r in ROLES}
            y_dots = {r: _over(pairs[:, index], units, r) for r in ROLES}
        else:
            x_list, y_list = method.contract(
                first.objective,
                first.S,
                [sums.py[r] for r in ROLES],
                [p(sums.x[r]) for r in ROLES],
            )
            x_dots, y_dots = dict(zip(ROLES, x_list, strict=True)), dict(zip(ROLES, y_list, strict=True))
            done += first.objective.tokens
            yield Progress(stage="measure", done=done, total=total)
        scalars.append(first.scalars(x_dots, y_dots))

    mean_y = _mean([sums.y[r] for r in ROLES], len(units))
    ratio = stale_ratio(registry, policy.optimizer, p, mean_y)
    yield FindingEvent(finding=checks.stale(ratio))
    yield Part(
        gradient_flow=msgspec.structs.replace(
            _whole_batch(panel, sums),
            stale_ratio=ratio,
            mapping_correlation=_mapping_correlation(registry, policy.optimizer, mean_y),
        )
    )
    return Measured(
        tuple(units),
        tuple(f.S for f in passed),
        tuple(f.log_probs for f in passed),
        tuple(scalars),
        pairs,
        sums,
        tuple(f.row for f in passed),
        ratio,
    )


@dataclass(frozen=True)
class _FirstPass:
    """What stays of a unit after its vectors are gone."""

    objective: UnitObjective
    S: Tensor
    log_probs: tuple[Tensor, ...]
    norms: tuple[float, float, float, float]
    """‖X_u‖, ‖Y_u‖, ‖P Y_u‖, X_u·P Y_u"""
    row: UnitRow

    def scalars(self, x_dots: dict[Role, float], y_dots: dict[Role, float]) -> UnitScalars:
        unit = self.objective.unit
        return UnitScalars(unit.id, unit.role, *self.norms, x_dots, y_dots)


def _first_pass(measured: Measurement, py: ParameterVector) -> _FirstPass:
    norms = (measured.x.norm(), measured.y.norm(), py.norm(), measured.x.dot(py))
    row = unit_row(measured.objective, measured.S, *norms)
    return _FirstPass(measured.objective, measured.S, measured.log_probs, norms, row)


def _sums(
    x: dict[Role, VectorSum],
    y: dict[Role, VectorSum],
    p: Preconditioner,
    units: Sequence[UnitObjective],
) -> Sums:
    return Sums(
        {r: x[r].total for r in ROLES},
        {r: y[r].total for r in ROLES},
        {r: p(y[r].total) for r in ROLES},
        {r: sum(u.unit.role == r for u in units) for r in ROLES},
    )


def _gram(xs: Sequence[ParameterVector], ys: Sequence[ParameterVector]) -> Tensor:
    """X_u·Y_v for all pairs [B, B], accumulated in float64, one parameter at a time."""
    total = torch.zeros((len(xs), len(ys)), dtype=torch.float64)
    for x_tensors, y_tensors in zip(
        zip(*(x.tensors for x in xs), strict=True),
        zip(*(y.tensors for y in ys), strict=True),
        strict=True,
    ):
        template = next((t for t in (*x_tensors, *y_tensors) if t is not None), None)
        if template is None:
            continue
        x, y = _stacked(x_tensors, template), _stacked(y_tensors, template)
        total += (x @ y.T).cpu()
    return total


def _stacked(tensors: Sequence[Tensor | None], template: Tensor) -> Tensor:
    zero = torch.zeros((), dtype=torch.float64, device=template.device).expand(template.numel())
    return torch.stack([zero if t is None else t.flatten().double() for t in tensors])


def _over(row: Tensor, units: Sequence[UnitObjective], role: Role) -> float:
    mask = torch.tensor([u.unit.role == role for u in units])
    return float(row[mask].sum())


def _mean(vectors: Sequence[ParameterVector], count: int) -> ParameterVector:
    """(Σ vectors)/count; a parameter that none of them has stays None."""
    tensors = []
    for parts in zip(*(v.tensors for v in vectors), strict=True):
        present = [t for t in parts if t is not None]
        tensors.append(torch.stack(present).sum(0) / max(count, 1) if present else None)
    return ParameterVector(vectors[0].ids, tuple(tensors))


def _whole_batch(panel: GradientFlow, sums: Sums) -> GradientFlow:
    x, y, py = (_mean([v[r] for r in ROLES], 1) for v in (sums.x, sums.y, sums.py))
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
