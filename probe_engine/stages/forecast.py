"""Forecast: tokens, floating-point operations, memory and time of the rest of the run, by method."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import get_args

import msgspec

from probe_engine.environment.device import completed
from probe_engine.events import Part
from probe_engine.model.memory import need
from probe_engine.model.teacher_forcing import device_of
from probe_engine.model.unit_gradients import UnitGradients, UnitObjective
from probe_engine.model.unit_gradients.fused.packing import packed
from probe_engine.model.workload import PassTokens, TokenCost, counted
from probe_engine.report import Cost, Forecast, Observed
from probe_engine.spec import Method, RunSpec
from probe_engine.stages import Stage
from probe_engine.stages.flow import Timed
from probe_engine.stages.memory import loaded_sizes
from probe_engine.stages.scorings import scorings, steps_taken, widened
from probe_engine.types import Extent, Policy

RUN_VECTORS, UNIT_VECTORS = 40, 10
"""How many ‖P·Y‖ a run and each of its units take in going through all parameters: matters where all weights
train. Counted roughly: norms, means, the optimizer's own step; dot products and sums."""
QUICK = 0.1
"""Seconds below which two responses are no measure of a full micro-batch, and a whole unit costs nothing."""
FORESEEN = ("measure", "estimate", "realize", "judge")
"""The stages that the forecast is about."""


def forecast(
    policy: Policy,
    units: Sequence[UnitObjective],
    method: UnitGradients,
    timed: Timed,
    spec: RunSpec,
    *,
    rao_blackwell: bool,
) -> Stage[Forecast]:
    """Counts one forward pass of the longest sequence, and times one of a small unit.

    Args:
        policy: its model in eval mode.
        units: the batch's.
        method: with which the run goes on.
        timed: X and Y of a few units by that method.
        spec: the options.
        rao_blackwell: whether X of (2b) is computed as well.
    """
    model, registry, size = policy.model, policy.registry, spec.micro_batch
    longest = max((s for unit in units for s in unit.sequences), key=len)
    one = counted(model, longest, spec.policy_temperature)
    token = TokenCost.of(one, registry, checkpointing=spec.checkpointing)
    taken = steps_taken(policy, spec.steps)
    again = scorings(units, taken, sweeping=not spec.no_sweep, narrow=widened(policy))
    directions = (4 + 2 * ("adamw" in taken)) * (1 + rao_blackwell)
    extent = Extent(sum(len(u.sequences) for u in units), one.tokens, 0)
    sizes = replace(loaded_sizes(model, registry, extent), units=len(units))

    largest = max(len(u.sequences) for u in units)
    windows, packs = packed(units, size), method.packs(units)
    costs, work = {}, {}
    for name in get_args(Method):
        passing = PassTokens.of(name, units, size, packs=packs)
        scoring = sum(PassTokens.of(name, scored, size, packs=packs).differentiated for scored in again)
        memory = need(
            replace(
                sizes,
                sequence=one.nbytes(name),
                together=max(len(window.units) for window in windows),
                split=any(window.oversize for window in windows) if name == "fused" else largest > size,
            ),
            next(model.parameters()).dtype,
            # The other methods take one unit a pass.
            micro_batch=size if name == "fused" else min(size, largest),
            budget=spec.memory_budget_bytes,
            method=name,
            rao_blackwell=rao_blackwell,
        )
        passes = 1 if memory.kept else 2
        gradients = token.gradients(name, passing, rao_blackwell=rao_blackwell)
        if passes == 2:
            gradients += token.contractions(name, passing, directions, rao_blackwell=rao_blackwell)
        work[name] = (gradients, scoring * token.forward)
        costs[name] = Cost(
            passes=passes,
            tokens=passes * _tokens(units) + sum(map(_tokens, again)),
            flops=sum(work[name]),
            memory=memory.total,
            parameter_lengths=memory.lengths + memory.kept // memory.vector,
        )

    if timed.seconds < QUICK:
        timed = _of_whole_unit(policy, timed, units[0], method)
    tried = token.gradients(method.name, PassTokens.of(method.name, timed.units, size, packs=packs))
    rate = tried / timed.seconds
    vectors = timed.vector_seconds * (RUN_VECTORS + UNIT_VECTORS * len(units))
    scoring_rate = _scoring_rate(policy, timed.units[0], method, token, size)
    made = Forecast(
        method=method.name,
        predicted=costs,
        measured=Observed(
            flops_per_second=rate,
            scoring_flops_per_second=scoring_rate,
            expected_seconds={
                name: gradients / rate + scoring / scoring_rate + vectors
                for name, (gradients, scoring) in work.items()
            },
        ),
    )
    yield Part(forecast=made)
    return made


def _tokens(units: Sequence[UnitObjective]) -> int:
    return sum(unit.tokens for unit in units)


def _of_whole_unit(policy: Policy, timed: Timed, unit: UnitObjective, method: UnitGradients) -> Timed:
    began = time.perf_counter()
    method.measure(unit)
    completed(device_of(policy.model))
    return replace(timed, units=(unit,), seconds=time.perf_counter() - began)


def _scoring_rate(
    policy: Policy, unit: UnitObjective, method: UnitGradients, token: TokenCost, micro_batch: int
) -> float:
    """Floating-point operations a second."""
    began = time.perf_counter()
    list(method.scores([unit]))
    completed(device_of(policy.model))
    seconds = time.perf_counter() - began
    tokens = PassTokens.of(method.name, [unit], micro_batch, packs=method.packs([unit]))
    return token.forward * tokens.differentiated / seconds


def compared(made: Forecast, seconds: Mapping[str, float], memory: int | None) -> Forecast:
    """The forecast beside what then happened."""
    took = sum(seconds[stage] for stage in FORESEEN)
    return msgspec.structs.replace(
        made, measured=msgspec.structs.replace(made.measured, seconds=took, memory=memory)
    )
