"""The whole run, stage by stage, readable on one screen."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import closing, nullcontext
from functools import partial
from typing import Literal, TypeVar

from probe_engine import __version__
from probe_engine.environment import environment
from probe_engine.environment.garbage import older_objects_left_alone
from probe_engine.environment.peak import watched
from probe_engine.events import Hello, Part, StageFinished, StageStarted
from probe_engine.model.checkpointing import checkpointed
from probe_engine.model.gradient_flow import grad_context
from probe_engine.model.preserving import preserved
from probe_engine.model.teacher_forcing import device_of
from probe_engine.model.unit_gradients import Loop, objectives, unit_gradients
from probe_engine.report import Tool
from probe_engine.sources.rollouts.locate import rollouts_found
from probe_engine.spec import Resolved, RunSpec
from probe_engine.stages import Stage
from probe_engine.stages.adopt import LiveObjects, small_batch
from probe_engine.stages.estimate import estimate, learning_rate
from probe_engine.stages.flow import flow
from probe_engine.stages.forecast import compared, forecast
from probe_engine.stages.judge import judge
from probe_engine.stages.measure import arranged, measure, plan, refuse_shards
from probe_engine.stages.on_policy import small_sample
from probe_engine.stages.realize import realize
from probe_engine.stages.rollouts import live_rollouts, rollouts
from probe_engine.types import Batch, Policy

T = TypeVar("T")
Loader = Callable[[RunSpec], Stage[Policy]]
"""Where the policy comes from: a checkpoint, live objects, or an earlier run of this process."""

Until = Literal["flow", "forecast", "verdict"]


def probe_run(
    resolved: Resolved, until: Until, loader: Loader, live: LiveObjects | None = None
) -> Stage[None]:
    """Every stage in order. `until="flow"` is the doctor's run, `until="forecast"` measures nothing."""
    spec = resolved.spec
    timed = _Timed()
    yield _hello(resolved)
    policy = yield from timed("load", loader(spec))
    random = until == "flow" and not (
        rollouts_found(spec, policy.step) if live is None else live.batch is not None
    )
    batch = yield from timed("rollouts", small_batch(policy, spec) if random else _batch(spec, policy, live))
    units = objectives(batch)
    x_estimator = spec.x_estimator if batch.constant_lambda else "score"
    rao_blackwell = x_estimator != "score"
    method = unit_gradients(
        spec.method,
        policy.model,
        policy.registry,
        micro_batch=spec.micro_batch,
        temperature=spec.policy_temperature,
    )
    plain = Loop(policy.model, policy.registry, spec.micro_batch, spec.policy_temperature)
    around = grad_context(policy.model)
    recomputing = checkpointed(policy.model) if spec.checkpointing else nullcontext()
    with (
        preserved(policy.model),
        recomputing,
        older_objects_left_alone(),
        watched(device_of(policy.model)) as peak,
    ):
        checked = yield from timed(
            "flow",
            flow(
                policy,
                units,
                method,
                plain,
                around,
                spec.policy_temperature,
                spec.seed,
                rao_blackwell=rao_blackwell,
                thorough=until == "flow",
                second_pass=not arranged(
                    method,
                    policy.registry,
                    len(units),
                    spec.memory_budget_bytes,
                    rao_blackwell=rao_blackwell,
                ).keeps,
            ),
        )
        if until == "flow":
            if not random:
                yield from small_sample(policy, units, checked.method, spec.policy_temperature)
            return
        refuse_shards(policy.registry)
        foresee = partial(
            forecast,
            policy,
            units,
            checked.method,
            checked.vector_seconds,
            spec,
            rao_blackwell=rao_blackwell,
        )
        if until == "forecast":
            yield from plan(
                policy,
                units,
                checked.method,
                checked.preconditioner,
                spec.memory_budget_bytes,
                foresee,
                rao_blackwell=rao_blackwell,
            )
            return
        measured = yield from timed(
            "measure",
            measure(
                policy,
                units,
                checked.method,
                checked.preconditioner,
                checked.panel,
                policy.optimizer.lr,
                spec.memory_budget_bytes,
                spec.policy_temperature,
                spec.steps,
                x_estimator,
                foresee,
            ),
        )
        eta = learning_rate(policy)
        estimates = yield from timed("estimate", estimate(eta, measured, spec.x_estimator))
        realized = yield from timed(
            "realize", realize(policy, batch, checked.method, eta, measured, estimates, spec)
        )
        yield from timed("judge", judge(eta, measured, estimates, realized, checked.panel.derivative))
        if measured.forecast is not None:
            yield Part(forecast=compared(measured.forecast, timed.seconds, peak.nbytes))


def _batch(spec: RunSpec, policy: Policy, live: LiveObjects | None) -> Stage[Batch]:
    return rollouts(spec, policy) if live is None else live_rollouts(spec, policy, live.batch)


class _Timed:
    """Counts the seconds in which each stage works: while it is told what it said, a run may be held."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def __call__(self, name: str, stage: Stage[T]) -> Stage[T]:
        """The stage, with its beginning and its end."""
        yield StageStarted(stage=name)
        seconds = 0.0
        with closing(stage):
            while True:
                began = time.monotonic()
                try:
                    event = next(stage)
                except StopIteration as end:
                    result: T = end.value
                    break
                finally:
                    seconds += time.monotonic() - began
                yield event
        self.seconds[name] = seconds
        yield StageFinished(stage=name, seconds=seconds)
        return result


def _hello(resolved: Resolved) -> Hello:
    spec = resolved.spec
    return Hello(
        pid=os.getpid(),
        seed=spec.seed,
        tool=Tool(version=__version__),
        environment=environment(spec.device, spec.dtype),
        config=resolved.config(),
    )
