"""What the run runs on."""

from __future__ import annotations

import platform

import torch

from probe_engine.environment.requirements import installed
from probe_engine.report import Environment


def environment(device: str, dtype: str) -> Environment:
    """Versions, device, dtype and threads."""
    chosen = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    return Environment(
        python=platform.python_version(),
        torch=str(torch.__version__),
        transformers=installed("transformers") or "not installed",
        peft=installed("peft") or "not installed",
        device=chosen,
        dtype=dtype,
        threads=torch.get_num_threads(),
    )
