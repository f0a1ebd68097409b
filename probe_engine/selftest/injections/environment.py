"""ENV, injected."""

from __future__ import annotations

import functools
import importlib
import json
import sys
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from probe_engine.api import doctor
from probe_engine.environment.memory import free_memory
from probe_engine.report import Report
from probe_engine.selftest.injection import Injection
from probe_engine.selftest.lab import Lab


def _old_peft(lab: Lab) -> Report:
    """What pip leaves of an old version that another path still offers: its metadata, found first."""
    site = lab.folder()
    (site / "peft-0.1.0.dist-info").mkdir()
    (site / "peft-0.1.0.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: peft\nVersion: 0.1.0\n"
    )
    sys.path.insert(0, str(site))
    importlib.invalidate_caches()
    try:
        return doctor(lab.checkpoint(), device="cpu")
    finally:
        sys.path.remove(str(site))
        importlib.invalidate_caches()


def _absent_device(lab: Lab) -> Report:
    return doctor(lab.checkpoint(), device="cuda:99")


def _pinned_kernel(lab: Lab) -> Report:
    """Attention that chooses the flash kernel itself, inside of the backend that alpha asks for."""
    healthy = lab.objects()
    attention: Any = healthy.model.get_base_model().model.layers[0].self_attn
    forward = attention.forward

    @functools.wraps(forward)
    def pinned(*args: Any, **kwargs: Any) -> Any:
        with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
            return forward(*args, **kwargs)

    attention.forward = pinned
    return doctor(
        healthy.model, optimizer=healthy.optimizer, batch=healthy.batch, device="cpu", method="alpha"
    )


def _larger_than_memory(lab: Lab) -> Report:
    """A weight file whose header and size agree on more than is free; its data are a hole on the disk."""
    checkpoint = lab.checkpoint()
    free = free_memory(torch.device("cpu"))
    assert free is not None, "a CPU says how much memory is free"
    numbers = free.nbytes  # four bytes each
    entry = {"dtype": "F32", "shape": [numbers], "data_offsets": [0, 4 * numbers]}
    header = json.dumps({"model.embed_tokens.weight": entry}).encode()
    with (checkpoint.parent / "base" / "model.safetensors").open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + 4 * numbers)
    return doctor(checkpoint, device="cpu")


INJECTIONS: tuple[Injection, ...] = (
    Injection("ENV001", "peft 0.1.0 is what is installed", _old_peft),
    Injection("ENV002", "the hundredth GPU of this machine is asked for", _absent_device),
    Injection("ENV003", "a module pins the flash kernel under --method alpha", _pinned_kernel),
    Injection("ENV004", "a base model four times larger than free memory", _larger_than_memory),
)
