"""How much memory is left: of the machine, of the container, of the device."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch


@dataclass(frozen=True, slots=True)
class FreeMemory:
    """Bytes that a process may still take, and what bounds them."""

    nbytes: int
    where: str


def free_memory(device: torch.device) -> FreeMemory | None:
    """What is left on a device; None where it does not say (Apple's shares the machine's)."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        # What torch has taken from the driver and does not use is free to it.
        pooled = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return FreeMemory(free + pooled, str(device))
    if device.type not in ("cpu", "mps"):
        return None
    machine = FreeMemory(int(psutil.virtual_memory().available), "this machine")
    containers = (FreeMemory(nbytes, "this container") for nbytes in container_limits())
    return min(machine, *containers, key=lambda free: free.nbytes)


def own_memory(device: torch.device) -> int | None:
    """Bytes free on a device with memory of its own; None where it shares the machine's."""
    free = None if device.type == "cpu" else free_memory(device)
    return None if free is None or device.type == "mps" else free.nbytes


def container_limits(
    root: Path = Path("/sys/fs/cgroup"), membership: Path = Path("/proc/self/cgroup")
) -> Iterator[int]:
    """Bytes left under each control group that limits this process (cgroup v2 and v1); none elsewhere.

    Args:
        root: where control groups are mounted.
        membership: the kernel's list of this process's groups.
    """
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            yield from _left(root, path, "memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
            yield from _left(root / "memory", path, *names)


def _left(root: Path, path: str, limit_file: str, usage_file: str, cache: str) -> Iterator[int]:
    """Of a group and of those that hold it. A container sees its own group as the root, by another path."""
    inner = root / path.lstrip("/")
    for folder in (inner, *inner.parents):
        if not folder.is_relative_to(root):
            return
        try:
            limit = int((folder / limit_file).read_text())
            usage = int((folder / usage_file).read_text())
            told = re.search(rf"^{cache} (\d+)$", (folder / "memory.stat").read_text(), re.M)
        except (OSError, ValueError):  # no such group here, or its limit is "max"
            continue
        reclaimable = int(told[1]) if told else 0
        yield max(0, limit - usage + reclaimable)
