"""A small case that the benchmarks' parts are tried on."""

from __future__ import annotations

import pytest
from _case import Case
from _setting import Setting

TINY = Setting(model="tiny", sequences=16, tokens=12, micro_batch=8)


@pytest.fixture(scope="session")
def case() -> Case:
    """LoRA on the tiny model, four prompts."""
    return Case.of(TINY)


@pytest.fixture(scope="session")
def full_case() -> Case:
    """The same, all parameters trained."""
    return Case.of(Setting(model="tiny", full=True, sequences=8, tokens=12))
