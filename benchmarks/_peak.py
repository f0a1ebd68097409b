"""The most memory that a run takes above the loaded model, each run in a process of its own.

On the CPU that is resident memory as Linux counts it. What glibc has got from Linux it likes to keep on its
free lists, in pieces that may or may not serve again, which hides what a run really needs: with
MALLOC_MMAP_THRESHOLD_ every tensor of more than 64 KiB is asked for, and given back, by itself.
"""

from __future__ import annotations

import gc
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch
from _case import Case
from _literal import Literal
from _per_sample import opacus, torch_func, unit_vectors
from _setting import Setting

THRESHOLD = "65536"


def by_torch_func(case: Case) -> None:
    """X and Y of all units from torch.func's per-sample gradients."""
    with torch_func(case) as gradients:
        unit_vectors(case, gradients, lambda *_: None)


def by_opacus(case: Case) -> None:
    """The same from Opacus'."""
    with opacus(case) as gradients:
        unit_vectors(case, gradients, lambda *_: None)


RUNS: dict[str, Callable[[Case], object]] = {
    "step": Case.step,
    "probe": Case.probe,
    "probe_nothing_kept": lambda case: case.probe(memory_budget="0B"),
    "fused_first_pass": Case.first_pass,
    "fused_kept": lambda case: case.measure("fused", keep=True),
    "fused": lambda case: case.measure("fused", keep=False),
    "loop": lambda case: case.measure("loop", keep=False),
    "alpha": lambda case: case.measure("alpha", keep=False),
    "literal": lambda case: Literal(case).dots(),
    "torch_func": by_torch_func,
    "opacus": by_opacus,
}
"""What can be looked at: the training step, the whole probe, and X, Y and their dot products by each way. The
last two give X and Y alone, as `fused_first_pass` does."""


def peak(run: str, setting: Setting) -> int:
    """Bytes.

    Raises:
        ChildProcessError: the run did not come through, with the last line that it wrote.
    """
    command = [sys.executable, __file__, run, json.dumps(asdict(setting))]
    environ = {**os.environ, "MALLOC_MMAP_THRESHOLD_": THRESHOLD}
    done = subprocess.run(command, capture_output=True, text=True, env=environ, check=False)
    if done.returncode:
        said = done.stderr.strip().splitlines() or ["nothing"]
        raise ChildProcessError(f"exit code {done.returncode}: {said[-1]}")
    return int(done.stdout.split()[-1])


def measured(run: Callable[[Case], object], case: Case) -> int:
    """Bytes above those before: of the allocator on CUDA, else of this process."""
    if torch.cuda.is_initialized():
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        run(case)
        return torch.cuda.max_memory_allocated() - before
    gc.collect()  # what it would free meanwhile would make room that does not count
    Path("/proc/self/clear_refs").write_text("5")  # forgets the peak so far: VmHWM begins anew
    before = resident("VmRSS")
    run(case)
    return resident("VmHWM") - before


def resident(field: str) -> int:
    """Bytes of this process: VmRSS now, VmHWM at most."""
    found = re.search(rf"^{field}:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024


if __name__ == "__main__":
    print(measured(RUNS[sys.argv[1]], Case.of(Setting(**json.loads(sys.argv[2])))))
