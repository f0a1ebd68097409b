"""Forecast: tokens, floating-point operations, memory and time of the rest of the run, by method."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice
from typing import get_args

import msgspec

from probe_engine.environment.device import completed
from probe_engine.events import Part
from probe_engine.model.memory import need
from probe_engine.model.teacher_forcing import device_of
from probe_engine.model.unit_gradients import UnitGradients, UnitObjective
from probe_engine.model.unit_gradients.fused.packing import packed
from probe_engine.model.unit_gradients.interface import Scored
from probe_engine.model.workload import (
    Counted,
    PassTokens,
    TokenCost,
    first_forward,
    largest_pass,
    scored_tokens,
)
from probe_engine.report import Cost, Forecast, Observed
from probe_engine.spec import Method, RunSpec
from probe_engine.stages import Stage
from probe_engine.stages.memory import loaded_sizes
from probe_engine.stages.meter import Meter
from probe_engine.stages.scorings import scorings, steps_taken, widened
from probe_engine.types import Extent, Policy
from probe_engine.vectors import wide

RUN_VECTORS, UNIT_VECTORS = 40, 10
"""How many ‖P·Y‖ a run and each of its units take in going through all parameters: matters where all weights
train. Counted roughly: norms, means, the optimizer's own step; dot products and sums."""
FORESEEN = ("measure", "estimate", "realize", "judge")
"""The stages that the forecast is about."""


SETTLED = 0.25
"""Seconds of passes whose rate says what others will take. A shorter first window is mostly counting, and
what is done for the first time: then the windows after it say it."""


@dataclass(frozen=True)
class Beginning:
    """The first units that a measurement takes: the forecast is made from them."""

    seconds: float
    """Until X and Y of some of these units were there, and what is made of them."""
    tokens: int
    """Of the sequences of those."""
    forward: Counted
    """The first forward pass."""


Foresee = Callable[[Beginning], Stage[Forecast]]


def beginning(policy: Policy, passes: Iterator[Scored], meter: Meter) -> tuple[Beginning, Iterator[Scored]]:
    """Lets a first pass over units begin.

    Args:
        passes: the first pass.
        meter: is told of its tokens.

    Returns:
        what was seen of its beginning, and all that the pass brings.
    """
    device = device_of(policy.model)
    begun: list[Scored] = []

    def seconds_of(units: Iterator[Scored]) -> float:
        began = time.perf_counter()
        for scored in units:
            begun.append(scored)
            completed(device)
            if time.perf_counter() - began >= SETTLED:
                break
        return time.perf_counter() - began

    with first_forward(policy.model) as counted:
        seconds, tokens = seconds_of(islice(passes, 1)), meter.done
        if seconds < SETTLED:
            more = seconds_of(passes)
            if meter.done > tokens:
                seconds, tokens = more, meter.done - tokens
    return Beginning(seconds, tokens, counted[0]), chain(begun, passes)


def forecast(
    policy: Policy,
    units: Sequence[UnitObjective],
    method: UnitGradients,
    vector_seconds: float,
    spec: RunSpec,
    first: Beginning,
    *,
    rao_blackwell: bool,
) -> Stage[Forecast]:
    """From what the first units took.

    Args:
        policy: its model in eval mode.
        units: the batch's.
        method: with which the run goes on.
        vector_seconds: what it takes to go through all parameters once.
        spec: the options.
        first: the beginning of the measurement.
        rao_blackwell: whether X of (2b) is computed as well.
    """
    model, registry, size = policy.model, policy.registry, spec.micro_batch
    dtype = next(model.parameters()).dtype
    longest = max((s for unit in units for s in unit.sequences), key=len)
    token = TokenCost.of(first.forward, registry, checkpointing=spec.checkpointing)
    taken = steps_taken(policy, spec.steps)
    again = scorings(units, taken, sweeping=not spec.no_sweep, narrow=widened(policy))
    directions = (4 + 2 * ("adamw" in taken)) * (1 + rao_blackwell)
    extent = Extent(sum(len(u.sequences) for u in units), len(longest), 0)
    sizes = replace(loaded_sizes(model, registry, extent), units=len(units))

    largest = max(len(u.sequences) for u in units)
    packs = method.packs(units)
    windows = packed(units, size, packs=packs)
    costs, work, apart = {}, {}, {}
    at_once = min(size, extent.sequences)
    for name in get_args(Method):
        tokens, targets = largest_pass(windows) if name == "fused" else (len(longest), len(longest.response))
        nbytes = first.forward.nbytes(name, tokens, targets, wide(dtype), rao_blackwell=rao_blackwell)
        passing = PassTokens.of(name, units, size, packs=packs, holds=not spec.checkpointing)
        scoring = sum(scored_tokens(name, scored, size, packs=packs) for scored in again)
        memory = need(
            replace(
                sizes,
                sequence=nbytes // at_once if name == "fused" else nbytes,
                split=any(window.oversize for window in windows) if name == "fused" else largest > size,
            ),
            dtype,
            # The other methods take one unit a pass.
            micro_batch=size if name == "fused" else min(size, largest),
            budget=spec.memory_budget_bytes,
            method=name,
            rao_blackwell=rao_blackwell,
        )
        passes = memory.arrangement.passes
        gradients = token.gradients(name, passing, rao_blackwell=rao_blackwell)
        apart[name] = memory.arrangement.apart
        if apart[name]:
            gradients += token.gradients(name, passing) + token.contractions(name, passing, directions)
            gradients += token.contractions(name, replace(passing, held=0), directions)
        elif passes == 2:
            gradients += token.contractions(name, passing, directions, rao_blackwell=rao_blackwell)
        work[name] = (gradients, scoring * token.forward)
        costs[name] = Cost(
            passes=passes,
            tokens=passes * _tokens(units) + sum(map(_tokens, again)),
            flops=sum(work[name]),
            memory=memory.total,
            parameter_lengths=memory.lengths + memory.kept // memory.vector,
        )

    first_pass = token.gradients(
        method.name,
        PassTokens.of(method.name, units, size, packs=packs),
        rao_blackwell=rao_blackwell and not apart[method.name],
    )
    rate = first_pass * first.tokens / _tokens(units) / first.seconds
    scoring_rate = first.forward.flops / first.forward.seconds
    vectors = vector_seconds * (RUN_VECTORS + UNIT_VECTORS * len(units))
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


def compared(made: Forecast, seconds: Mapping[str, float], memory: int | None) -> Forecast:
    """The forecast beside what then happened."""
    took = sum(seconds[stage] for stage in FORESEEN)
    return msgspec.structs.replace(
        made, measured=msgspec.structs.replace(made.measured, seconds=took, memory=memory)
    )
