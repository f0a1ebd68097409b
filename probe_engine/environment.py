"""What the run runs on."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

import torch

from probe_engine.report import Environment


def environment(device: str, dtype: str) -> Environment:
    """Versions, device, dtype and threads."""
    chosen = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    return Environment(
        python=platform.python_version(),
        torch=str(torch.__version__),
        transformers=_version("transformers"),
        peft=_version("peft"),
        device=chosen,
        dtype=dtype,
        threads=torch.get_num_threads(),
    )


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
