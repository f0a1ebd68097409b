"""Measure: X_u, Y_u and every dot product of them that the estimators need."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import partial

import msgspec
import torch

from probe_engine.checks import gradient, preconditioner
from probe_engine.checks.mapping import order_in_question, own_states
from probe_engine.checks.optimizer import own_step_known
from probe_engine.environment.memory import own_memory
from probe_engine.errors import ProbeError
from probe_engine.estimators.mapping import GradientSquares, mapping_correlation
from probe_engine.events import FindingEvent, Part, Units
from probe_engine.model.checkpointing import recomputing
from probe_engine.model.memory import Arrangement
from probe_engine.model.preconditioner import Preconditioner, stale_ratio
from probe_engine.model.sharding import is_sharded
from probe_engine.model.unit_gradients import UnitGradients, UnitObjective
from probe_engine.model.unit_gradients.received import UnitSums
from probe_engine.registry import ParameterRegistry
from probe_engine.report import Forecast, GradientFlow, MethodInfo
from probe_engine.spec import StepKind, XEstimator, XForm
from probe_engine.stages import Stage
from probe_engine.stages.forecast import Foresee, beginning
from probe_engine.stages.measured import ROLES, Measured, Projected, Sums
from probe_engine.stages.meter import Meter
from probe_engine.stages.on_policy import sampled_from_policy
from probe_engine.stages.own_step import is_known, max_grad_norm, step_on
from probe_engine.stages.panel import of_sums
from probe_engine.stages.unit_dots import (
    Dotted,
    FirstPass,
    OwnDirections,
    from_kept,
    from_pairs,
    grown,
    rao_blackwell_passes,
    second_pass,
)
from probe_engine.types import OptimizerState, Policy, Role
from probe_engine.vectors import ParameterVector, wide

CHEAP_VECTORS = 10_000_000
"""Numbers in all kept X below which pairwise products are brought up to date with every unit."""


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


def arranged(
    method: UnitGradients, registry: ParameterRegistry, units: int, budget: int, *, rao_blackwell: bool
) -> Arrangement:
    """The passes over this many units, with `budget` bytes for kept vectors."""
    vector = sum(v.numel() * wide(v.dtype).itemsize for v in registry.parameters)
    room = own_memory(registry.parameters[0].device) if registry.parameters else None
    return Arrangement.within(
        budget, vector, units, room, may_keep=method.keeps_vectors, rao_blackwell=rao_blackwell
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
    x_estimator: XEstimator = "score",
    foresee: Foresee | None = None,
) -> Stage[Measured]:
    """First pass: norms, diagonal, sums. Then the dot products with the sums: from kept vectors where
    they fit into the budget, else by a second pass. X of (2b) has two more where even its sums are large.

    Args:
        panel: the gradient-flow panel so far; its sums become those of the whole batch.
        eta: the learning rate, for the contributions so far; None where it is not known.
        memory_budget: bytes for kept X_u and P Y_u, or an eighth of it for the sums of a second form of X.
        policy_temperature: by which the method divides logits.
        steps: with `adamw`, the units' dot products with the optimizer's own step are taken as well.
        x_estimator: beyond `score`, X of (2b) is computed beside that of (2); λ must be constant.
        foresee: makes the forecast once the first units are there.
    """
    registry = policy.registry
    forms: tuple[XForm, ...] = ("score",) if x_estimator == "score" else ("score", "rao_blackwell")
    arrangement = arranged(method, registry, len(units), memory_budget, rao_blackwell=len(forms) > 1)
    keep, rao_blackwell = arrangement.keeps, len(forms) > 1 and not arrangement.apart
    if arrangement.apart:
        forms = forms[:1]  # at first
    recomputed = recomputing(policy.model)
    keep_on = _kept_on(registry, arrangement) if keep else None
    info = partial(_info, method, units, x_estimator, arrangement, keep_on, recomputed)
    yield Part(method=info())
    if keep:
        p = p.held()
    meter = Meter("measure", sum(u.tokens for u in units) * arrangement.passes)

    every = _growth_step(len(units), registry.numel)
    squares = GradientSquares(registry) if order_in_question(policy.optimizer) else None
    roles = [u.unit.role for u in units]
    unit_sums = UnitSums(registry, p, roles, keep_on=keep_on, rao_blackwell=rao_blackwell, squares=squares)
    passed: list[FirstPass] = []
    first_pass = method.measurements(
        units,
        unit_sums,
        meter,
        rao_blackwell=rao_blackwell,
        hold=not keep and not recomputed,
    )
    foreseen: Forecast | None = None
    if foresee is not None:
        begun, first_pass = beginning(policy, first_pass, meter)
        foreseen = yield from foresee(begun)
    for number, scored in enumerate(first_pass):
        first = FirstPass.of(scored, {form: unit_sums.norms(number, form) for form in forms})
        passed.append(first)
        yield Units(rows=[first.row])
        if keep and len(passed) % every == 0 and eta is not None:
            pairs = {form: dots.matrix(len(passed)) for form, dots in unit_sums.pairs.items()}
            known = {form: from_pairs(passed, form, matrix) for form, matrix in pairs.items()}
            yield from grown(known, _sizes(passed), eta)
        yield meter.progress

    counts = {role: roles.count(role) for role in ROLES}
    x_sums = {form: Sums(unit_sums.x(form), counts) for form in forms}
    y_sums = Sums(unit_sums.y, counts)
    py_sums = y_sums.preconditioned(p)
    mean_y = y_sums.mean(ROLES)
    if "adamw" in steps:
        yield FindingEvent(
            finding=own_step_known(policy.optimizer, registry, max_grad_norm(policy), mean_y.norm())
        )
    stepped = "adamw" in steps and is_known(policy)
    own = step_on(policy, y_sums.mean(["U"])) if stepped and all(counts.values()) else None
    of_all = step_on(policy, mean_y) if stepped else None
    along = None if own is None else OwnDirections.of(own, x_sums)
    pairs = {form: dots.matrix(len(passed)) for form, dots in unit_sums.pairs.items()}
    if keep:
        dotted = {form: from_kept(passed, form, dots, along, p) for form, dots in unit_sums.pairs.items()}
    else:
        dotted = yield from second_pass(method, passed, x_sums, py_sums, along, p, eta, meter)
    limit = max_grad_norm(policy)

    def projected(form: XForm, x: Sums, dots: Dotted) -> Projected:
        return Projected(
            tuple(dots.scalars),
            pairs.get(form),
            None if own is None else dots.own_step(own, x.mean(["E"]), limit),
            None if of_all is None else x.mean(ROLES).dot(of_all.delta),
        )

    by_form = {form: projected(form, x_sums[form], dots) for form, dots in dotted.items()}
    of_x = x_sums["score"].total.summary()
    if arrangement.apart:
        del along, x_sums  # before the other form's sums are made
        passed, x_rb, dots_rb = yield from rao_blackwell_passes(
            method, registry, passed, dotted["score"], py_sums, own, p, eta, meter
        )
        by_form["rao_blackwell"] = projected("rao_blackwell", x_rb, dots_rb)
    yield Part(method=info())
    yield from sampled_from_policy(units, [first.scored.tokens for first in passed], policy_temperature)

    ratio = stale_ratio(registry, policy.optimizer, p, mean_y)
    yield FindingEvent(finding=preconditioner.stale(ratio))
    yield FindingEvent(finding=preconditioner.fallback_scale(p, py_sums.total))
    of_y, of_py = y_sums.total.summary(), py_sums.total.summary()
    finite = gradient.finite({"ΣX": of_x, "ΣY": of_y, "ΣP·Y": of_py}, registry)
    order = own_states(policy.optimizer, registry, squares)
    if finite.status == "fail":  # of the few units that `flow` looked at all may have been finite
        yield FindingEvent(finding=finite)
    yield FindingEvent(finding=order)
    yield Part(
        gradient_flow=msgspec.structs.replace(
            of_sums(panel, of_x, of_y, of_py),
            stale_ratio=ratio,
            mapping_correlation=_mapping_correlation(registry, policy.optimizer, mean_y),
        )
    )
    return Measured(
        tuple(units),
        tuple(f.scored.S for f in passed),
        tuple(f.scored.tokens for f in passed),
        by_form,
        y_sums,
        py_sums,
        tuple(f.row for f in passed),
        ratio,
        foreseen,
    )


def plan(
    policy: Policy,
    units: Sequence[UnitObjective],
    method: UnitGradients,
    p: Preconditioner,
    memory_budget: int,
    foresee: Foresee,
    *,
    rao_blackwell: bool,
) -> Stage[Forecast]:
    """The forecast alone: the first units are measured as `measure` does it, and let go."""
    registry = policy.registry
    arrangement = arranged(method, registry, len(units), memory_budget, rao_blackwell=rao_blackwell)
    rao_blackwell = rao_blackwell and not arrangement.apart
    roles = [u.unit.role for u in units]
    p = p.held() if arrangement.keeps else p
    sums = UnitSums(registry, p, roles, keep_on=None, rao_blackwell=rao_blackwell)
    meter = Meter("measure", sum(u.tokens for u in units))
    passes = method.measurements(units, sums, meter, rao_blackwell=rao_blackwell)
    begun, _ = beginning(policy, passes, meter)
    return (yield from foresee(begun))


def _info(
    method: UnitGradients,
    units: Sequence[UnitObjective],
    x_estimator: XEstimator,
    arrangement: Arrangement,
    keep_on: torch.device | None,
    recomputed: int,
) -> MethodInfo:
    return MethodInfo(
        name=method.name,
        x_estimator=x_estimator,
        passes=arrangement.passes,
        vectors_kept=keep_on is not None,
        vectors_on=None if keep_on is None else str(keep_on),
        fallback_parameters=method.fallback_parameters,
        attention=method.attention,
        checkpointed_layers=recomputed,
        packed=method.packs(units),
    )


def _kept_on(registry: ParameterRegistry, arrangement: Arrangement) -> torch.device:
    return registry.parameters[0].device if arrangement.on_device else torch.device("cpu")


def _sizes(passed: Sequence[FirstPass]) -> dict[Role, int]:
    return {r: sum(f.scored.objective.unit.role == r for f in passed) for r in ROLES}


def _growth_step(units: int, parameters: int) -> int:
    """Units between two updates of the pairwise products: 1 for short vectors, else an eighth of all."""
    return 1 if units * parameters <= CHEAP_VECTORS else max(2, units // 8)


def _mapping_correlation(
    registry: ParameterRegistry, state: OptimizerState, gradient: ParameterVector
) -> float | None:
    known = [state.moments.get(name) for name in registry.names]
    return mapping_correlation([None if m is None else m.exp_avg_sq for m in known], gradient.tensors)
