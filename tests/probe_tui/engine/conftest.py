from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import workers


@pytest.fixture
def start(tmp_path: Path) -> Iterator[workers.Start]:
    """Starts a script as a worker."""
    with workers.scripted(tmp_path) as start:
        yield start
