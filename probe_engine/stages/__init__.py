"""The stages of a run. Each is a generator: it yields events and returns its typed result."""

from __future__ import annotations

from collections.abc import Generator
from typing import TypeVar

from probe_engine.events import AnyEvent

T = TypeVar("T")
Stage = Generator[AnyEvent, None, T]
