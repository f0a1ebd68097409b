from __future__ import annotations

import pytest

from probe_engine.selftest.lab import Lab


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """Hands out copies, so that tests may share it."""
    return Lab(tmp_path_factory.mktemp("lab") / "home")
