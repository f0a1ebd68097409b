"""ROLL, injected."""

from __future__ import annotations

from probe_engine.selftest.injection import Injection

INJECTIONS: tuple[Injection, ...] = ()
