from __future__ import annotations

import shutil
from pathlib import Path

import checkpoints
import pytest
from bad_inputs import PROMPTS, RESPONSES, Copy


@pytest.fixture(scope="session")
def good(tmp_path_factory: pytest.TempPathFactory) -> dict[checkpoints.Kind, Path]:
    """One healthy run of each kind; tests work on copies."""
    folders = {kind: tmp_path_factory.mktemp(kind) for kind in ("lora", "full")}
    for kind, folder in folders.items():
        checkpoints.run(folder, kind, prompts=PROMPTS, responses=RESPONSES)
    return folders


@pytest.fixture
def copy(good: dict[checkpoints.Kind, Path], tmp_path: Path) -> Copy:
    """Copies a healthy run; returns the copy's checkpoint."""

    def copied(kind: checkpoints.Kind) -> Path:
        shutil.copytree(good[kind], tmp_path / kind)
        return tmp_path / kind / "run" / f"checkpoint-{checkpoints.STEP}"

    return copied
