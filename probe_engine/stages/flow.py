"""Flow: does gradient flow? One small group, link by link, before anything is measured."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

import msgspec
import torch

from probe_engine.checks import cut
from probe_engine.checks import gradient as checks
from probe_engine.checks.derivative import derivative
from probe_engine.checks.environment import double_backward
from probe_engine.checks.mapping import order_in_question, own_states
from probe_engine.checks.parameters import counted_once
from probe_engine.environment.device import completed
from probe_engine.errors import ProbeError, memory_ran_out
from probe_engine.estimators.mapping import GradientSquares
from probe_engine.events import FindingEvent, Part
from probe_engine.model import gradient_flow as look
from probe_engine.model.cut_graph import Walk, training_checkpoints, walk
from probe_engine.model.double_backward import twice_differentiable
from probe_engine.model.gradient_flow import GradContext, Gradients
from probe_engine.model.noise import Noise, first_noise
from probe_engine.model.precision import coarsest
from probe_engine.model.preconditioner import Preconditioner, preconditioner
from probe_engine.model.sharding import from_first_rank
from probe_engine.model.teacher_forcing import device_of
from probe_engine.model.unit_gradients import Alpha, Loop, Measurement, UnitGradients, UnitObjective
from probe_engine.report import Finding, GradientFlow, IdMatch, finding
from probe_engine.stages import Stage
from probe_engine.stages.derivative import derivative_test
from probe_engine.stages.numerics import numerics
from probe_engine.stages.panel import of_sums
from probe_engine.types import Policy

EXCERPTS = 2
"""Units that are tried: what is compared has no sampling noise, but some of it cancels within one."""


@dataclass(frozen=True)
class Flow:
    """What the measurement needs to know."""

    preconditioner: Preconditioner
    panel: GradientFlow
    method: UnitGradients
    """The one that was asked for, or plain autograd where it disagrees."""
    vector_seconds: float
    """What it takes to go through all parameters once, for ‖P·Y‖."""


def flow(
    policy: Policy,
    units: Sequence[UnitObjective],
    method: UnitGradients,
    plain: Loop,
    context: GradContext,
    temperature: float,
    seed: int,
    *,
    rao_blackwell: bool,
    second_pass: bool,
    thorough: bool,
) -> Stage[Flow]:
    """Checks the chain parameters → logits → S → L → gradients, and the ids of the buffers.

    All of it on excerpts of two units, so that it costs the same on any batch; gradients are looked at over
    whole responses where an excerpt leaves some of them 0.

    Args:
        policy: its model in eval mode.
        units: the batch's.
        method: how X and Y are computed.
        plain: by plain autograd: what `method` is compared with, and what stands in for it.
        context: autograd's state around the call, as it was before the probe changed anything.
        temperature: by which logits are divided.
        seed: draws the units.
        rao_blackwell: whether X of (2b) will be measured as well.
        second_pass: whether vectors will not be kept, but contracted in a second pass.
        thorough: whether gradients are looked at over whole responses in any case, and the order of Adam's
            states with them: what the measurement does if there is one.

    Raises:
        ProbeError: no gradient arrives, so there is nothing to measure (exit code 1: the findings say why).
    """
    registry = policy.registry
    panel = GradientFlow(grad_context=str(context), registry=len(registry))
    yield from _say(checks.context(context))
    if not context.healthy:
        yield Part(gradient_flow=panel)
        raise _stopped("gradients are off around this call")
    yield from _say([counted_once(registry)])
    units = from_first_rank(policy.model, units)
    tried = _excerpts(units, seed)
    traced = yield from _traced(
        policy, tried[0], plain, panel, context, temperature, rao_blackwell=rao_blackwell
    )
    if isinstance(method, Alpha):
        problem = twice_differentiable(policy.model, registry, tried[0].sequences[0])
        yield from _say([double_backward(problem, method.name, method.attention)])
        method = plain if problem else method
    p = preconditioner(registry, policy.optimizer)
    trusted = yield from numerics(
        policy,
        units,
        tried,
        method,
        plain,
        traced.measured,
        p,
        coarsest(policy.model, traced.walked.dtypes),
        steady=traced.steady,
        rao_blackwell=rao_blackwell,
        second_pass=second_pass,
    )
    arrived = yield from _arrived(policy, units, trusted.method, p, traced, thorough=thorough)
    del traced  # a unit's X and Y, in whose room the test makes its own
    panel = arrived.panel
    if arrived.waits_for is None:
        test = derivative_test(policy, tried, trusted.method, p, trusted.measured)
        yield from _say([derivative(test)])
        panel = _with(panel, derivative=test)
        yield Part(gradient_flow=panel)
    else:
        yield from _say([finding("GRAD021", "skip", f"waits for {arrived.waits_for}")])
    return Flow(p, panel, trusted.method, arrived.vector_seconds)


def _excerpts(units: Sequence[UnitObjective], seed: int) -> list[UnitObjective]:
    """Of units that have a Y, where there are any: of the others nothing of it can be seen."""
    drawn = random.Random(seed).sample(units, len(units))
    telling = islice((brief for unit in drawn if not (brief := unit.brief()).y_cancels), EXCERPTS)
    return list(telling) or [unit.brief() for unit in drawn[:EXCERPTS]]


@dataclass(frozen=True)
class _Traced:
    """The way from the parameters to S, of one small unit."""

    walked: Walk
    steady: bool
    """Whether S was the same twice."""
    noise: Noise | None
    measured: Measurement | None
    """Its X and Y by plain autograd, where they came with S."""
    panel: GradientFlow


def _traced(
    policy: Policy,
    unit: UnitObjective,
    plain: Loop,
    panel: GradientFlow,
    context: GradContext,
    temperature: float,
    *,
    rao_blackwell: bool,
) -> Stage[_Traced]:
    """Forward, link by link: parameters → logits → S."""
    model, registry = policy.model, policy.registry
    try:
        walked = walk(model, unit, temperature)
    except Exception as error:
        if memory_ran_out(error):
            raise
        # The first forward pass: a configuration that does not fit the code shows here, as any exception.
        raise _no_forward(error, context) from error
    arrived = look.arrival(plain, unit, rao_blackwell=rao_blackwell)
    with training_checkpoints(model) as reentrant:
        training = walk(model, unit, temperature) if reentrant else None
    yield from _say([cut.checkpointing(training), cut.inside(walked)])
    steady = not cut.differ(walked.S, arrived.S)
    noise = None if steady else first_noise(model, unit)
    yield from _say([cut.repeated(walked.S, arrived.S, noise)])
    panel = _with(
        panel,
        logits_grad_fn=walked.logits_grad_fn,
        s_grad_fn=walked.s_grad_fn,
        reaches_embeddings=walked.s_grad_fn is not None and bool(arrived.embedding_gradient_norm),
    )
    yield from _say(checks.graph(walked, arrived, registry))
    if walked.s_grad_fn is None or not len(registry):
        yield Part(gradient_flow=panel)
        raise _stopped("S has no graph")
    if not torch.isfinite(walked.S).all():
        yield from _say([checks.finite({"S": walked.S}, registry)])
        yield Part(gradient_flow=panel)
        raise _stopped("S is not a finite number")
    return _Traced(walked, steady, noise, arrived.measured, panel)


@dataclass(frozen=True)
class _Arrived:
    """What came back to the parameters."""

    panel: GradientFlow
    vector_seconds: float
    waits_for: str | None
    """A finding whose cause the derivative test would only say again."""


def _arrived(
    policy: Policy,
    units: Sequence[UnitObjective],
    method: UnitGradients,
    p: Preconditioner,
    traced: _Traced,
    *,
    thorough: bool,
) -> Stage[_Arrived]:
    """And back: S → L → gradients, and P·Y of them."""
    registry = policy.registry
    expected = len(registry) - len(checks.fresh_adapter_parameters(registry))
    seen = None if traced.measured is None else Gradients.of(traced.measured)
    squares = GradientSquares(registry) if thorough and order_in_question(policy.optimizer) else None
    if thorough or seen is None or not seen.complete(expected):
        # Groups whose advantages differ come first: the others have Y = 0 and show nothing of it.
        informative = sorted(units, key=lambda unit: not bool(unit.advantages.any()))
        seen = look.gradients(method, registry, informative, expected, squares)
    completed(device_of(policy.model))
    began = time.perf_counter()
    py = p(seen.y)
    of_py = py.summary()
    vector_seconds = time.perf_counter() - began
    of_x, of_y = seen.x.summary(), seen.y.summary()
    match = _match(policy, set(py.ids))
    panel = _with(
        of_sums(traced.panel, of_x, of_y, of_py),
        dl_ds_nonzero=seen.x_weights_nonzero and seen.y_weights_nonzero,
        matched=match.matched,
        missing=match.missing,
        stray=match.stray,
        fallbacks=len(p.fallbacks),
    )
    finite = checks.finite({"X": of_x, "Y": of_y, "P·Y": of_py}, registry)
    yield from _say([checks.weights(seen), checks.identity(match)])
    yield from _say(
        [checks.unused(seen, registry, traced.walked.ran), *checks.counts(seen, registry), finite]
    )
    if thorough:
        yield from _say([own_states(policy.optimizer, registry, squares)])
    yield Part(gradient_flow=panel)
    if not of_x.non_none or not of_y.non_none:
        raise _stopped("all gradients are None")
    causes = {
        "GRAD015": traced.noise is not None,
        "GRAD005": not seen.x_weights_nonzero,
        "GRAD011": finite.status == "fail",
    }
    return _Arrived(panel, vector_seconds, next((code for code, fired in causes.items() if fired), None))


def _match(policy: Policy, buffer_ids: set[int]) -> IdMatch:
    """Registry against the live model, and the μ_Y buffer against the registry: the worse of the two."""
    registry = policy.registry.verify(policy.model)
    buffer = IdMatch.count(buffer_ids, set(policy.registry.ids))
    return max(registry, buffer, key=lambda m: m.missing + m.stray)


def _with(panel: GradientFlow, **changes: object) -> GradientFlow:
    return msgspec.structs.replace(panel, **changes)


def _say(findings: Sequence[Finding]) -> Stage[None]:
    for found in findings:
        yield FindingEvent(finding=found)


def _no_forward(error: Exception, context: GradContext) -> ProbeError:
    lines = str(error).strip().splitlines() or [""]
    return ProbeError(
        f"expected logits from the model's forward pass, it raised {type(error).__name__}: {lines[0][:200]}",
        "A model that runs under autocast alone needs it inside of its own forward: see GRAD022."
        if context.autocast
        else "Check that config.json (and adapter_config.json) are those that the model was trained with.",
        code="GRAD003",
        exit_code=1,
    )


def _stopped(why: str) -> ProbeError:
    return ProbeError(
        f"gradient does not flow ({why}), so there is nothing to measure",
        "mend the failed findings above, the first one first",
        exit_code=1,
    )
