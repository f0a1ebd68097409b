"""Outside of every autocast region, wherever the call comes from."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager

import torch


@contextmanager
def outside_autocast(devices: Collection[str]) -> Iterator[None]:
    """As if the caller had entered no `torch.autocast`; all is the caller's again afterwards.

    Not `torch.autocast(enabled=False)`: that is one more region around the model's own, and torch keeps casts
    of weights until the outermost one ends. A forward would then use the casts of weights that a step has
    moved since, and those made under no_grad, which have no graph.

    Args:
        devices: types of device, such as cpu and cuda.
    """
    enabled = {d: torch.is_autocast_enabled(d) for d in devices if torch.amp.is_autocast_available(d)}
    regions = torch.autocast_increment_nesting() - 1
    for _ in range(regions + 1):
        torch.autocast_decrement_nesting()
    torch.clear_autocast_cache()
    for device in enabled:
        torch.set_autocast_enabled(device, False)
    try:
        yield
    finally:
        for device, on in enabled.items():
            torch.set_autocast_enabled(device, on)
        for _ in range(regions):
            torch.autocast_increment_nesting()
