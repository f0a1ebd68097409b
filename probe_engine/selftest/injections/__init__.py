"""Every injection, one file a family, in the catalogue's order."""

from __future__ import annotations

from probe_engine.selftest.injection import Injection
from probe_engine.selftest.injections import (
    adapter,
    checkpoint,
    environment,
    gradient,
    optimizer,
    rollouts,
    run,
    statistics,
)

INJECTIONS: tuple[Injection, ...] = (
    *environment.INJECTIONS,
    *checkpoint.INJECTIONS,
    *adapter.INJECTIONS,
    *optimizer.INJECTIONS,
    *gradient.INJECTIONS,
    *rollouts.INJECTIONS,
    *statistics.INJECTIONS,
    *run.INJECTIONS,
)
