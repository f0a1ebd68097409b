"""Load once: a re-run with other options keeps the model that this process holds."""

from __future__ import annotations

from probe_engine.events import AnyEvent, FindingEvent
from probe_engine.report import Finding
from probe_engine.sources.rollouts.extent import rollouts_extent
from probe_engine.spec import RunSpec
from probe_engine.stages import Stage
from probe_engine.stages.load import load
from probe_engine.stages.memory import of_loaded
from probe_engine.types import Policy

RELEVANT = ("checkpoint", "base", "dtype", "device", "trust", "lr", "policy_temperature")
"""The options that `load` reads."""


class CachedLoad:
    """`load`, whose findings and policy are said again where the relevant options are the same."""

    def __init__(self) -> None:
        self._key: tuple[object, ...] | None = None
        self._said: list[AnyEvent] = []
        self._policy: Policy | None = None

    def __call__(self, spec: RunSpec) -> Stage[Policy]:
        """The policy of these options."""
        key = tuple(getattr(spec, name) for name in RELEVANT)
        if self._policy is not None and key == self._key:
            yield from (event for event in self._said if not _of_one_run(event))
            yield FindingEvent(finding=_memory(spec, self._policy))
            return self._policy
        self._key, self._policy, self._said = None, None, []
        stage = load(spec)
        while True:
            try:
                event = next(stage)
            except StopIteration as loaded:
                self._key, self._policy = key, loaded.value
                return self._policy
            self._said.append(event)
            yield event


def _of_one_run(event: AnyEvent) -> bool:
    """The forecast of memory is about options that may differ now."""
    return isinstance(event, FindingEvent) and event.finding.code == "ENV004"


def _memory(spec: RunSpec, policy: Policy) -> Finding:
    extent = rollouts_extent(spec, policy.trainer, policy.step, policy.tokenizer)
    return of_loaded(spec, policy.model, policy.registry, extent)
