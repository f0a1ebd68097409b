"""ENV: does this installation compute what is asked for, and does it fit?"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import product

import torch

from probe_engine.environment.device import trial
from probe_engine.environment.memory import FreeMemory
from probe_engine.environment.requirements import LIBRARIES, Demand
from probe_engine.errors import ProbeError
from probe_engine.model.memory import Need
from probe_engine.report import Finding, finding
from probe_engine.spec import RunSpec

NARROW = "bfloat16"
MIB = 2**20


def versions(demands: Iterable[Demand]) -> Finding:
    """ENV001: does each library lie in the range that the packages' own metadata ask for?"""
    asked = tuple(demands)
    unmet = [demand for demand in asked if not demand.met]
    if not unmet:
        seen = {demand.library: demand.installed for demand in asked}
        listed = ", ".join(f"{name} {seen[name]}" for name in LIBRARIES if name in seen)
        return finding(
            "ENV001", "ok", listed or "this package is not installed, so that nothing asks for any"
        )
    wanted = "; ".join(
        f"{d.package} asks for {d.library} {d.range or 'of any version'}, "
        + (f"{d.installed} is installed" if d.installed else "none is installed")
        for d in unmet
    )
    return finding(
        "ENV001",
        "fail",
        f"expected libraries that fit each other, found otherwise: {wanted}. What follows may be wrong or "
        "fail in ways that name another cause",
        value=len(unmet),
        threshold=0,
        evidence={d.library: d.installed or "none" for d in unmet},
        commands=[f"pip install '{library}{_range(unmet, library)}'" for library in _libraries(unmet)],
    )


def computes(wanted: Iterable[tuple[torch.device, torch.dtype]]) -> Finding:
    """ENV002: is a product of two small matrices differentiated rightly on each device, in its dtype?

    Raises:
        ProbeError: it is not, so nothing can be computed (exit code 1).
    """
    seen = []
    for device, dtype in dict.fromkeys(wanted):
        name = str(dtype).removeprefix("torch.")
        seen.append(f"{device} in {name}")
        if problem := trial(device, dtype):
            raise ProbeError(
                f"expected {device} to multiply and differentiate in {name}, it does not ({problem}): no "
                "forward or reverse pass of the model can run there",
                code="ENV002",
                exit_code=1,
                evidence={"device": str(device), "dtype": name},
            )
    if not seen:
        return finding("ENV002", "skip", "no floating-point parameter trains")
    return finding("ENV002", "ok", f"multiplies and differentiates: {', '.join(seen)}")


def double_backward(problem: str, method: str, attention: str) -> Finding:
    """ENV003: can `alpha` differentiate the model's gradient once more?

    Args:
        problem: what went wrong where it was tried, empty where nothing did.
        method: `--method`.
        attention: the attention that it was tried with.
    """
    if not problem:
        return finding("ENV003", "ok", f"{method} on 4 tokens: differentiated twice under {attention}")
    return finding(
        "ENV003",
        "warn",
        f"expected a model that can be differentiated twice, as {method} needs; under {attention} attention "
        f"it can't ({problem}): loop is used instead, which gives the same numbers and costs more passes",
        value=attention,
        evidence={"error": problem},
    )


def memory(
    forecast: Callable[[str, int, int], Need], spec: RunSpec, free: FreeMemory | None, dtype: str
) -> Finding:
    """ENV004: will the run fit into memory?

    Args:
        forecast: the need at a dtype, a micro-batch and a memory budget.
        spec: the options.
        free: what is left; None where the device does not say.
        dtype: the model's.

    Raises:
        ProbeError: the weights alone do not fit, so loading them would take the machine down.
    """
    if free is None:
        return finding("ENV004", "skip", "the device does not say how much memory is free")
    needed = forecast(dtype, spec.micro_batch, spec.memory_budget_bytes)
    evidence: dict[str, object] = {
        "weights": needed.weights,
        "optimizer": needed.optimizer,
        "gradients": needed.vectors,
        "kept vectors": needed.kept,
        "micro-batch": needed.sequences * needed.sequence,
        "float32 copies": needed.widened,
    }
    text, commands = _remedy(forecast, spec, free, dtype)
    if needed.weights > free.nbytes:
        raise ProbeError(
            f"expected room for the weights, {size(needed.weights)} in {dtype}, found "
            f"{size(free.nbytes)} free on {free.where}: nothing was loaded",
            text,
            code="ENV004",
            commands=commands,
            evidence=evidence,
        )
    if needed.total <= free.nbytes:
        # Not how much is free: the same run would write another report.
        told = f"about {size(needed.total)} needed, {free.where} has room"
        return finding("ENV004", "ok", told, value=needed.total, evidence=evidence)
    return finding(
        "ENV004",
        "warn",
        f"expected room for about {size(needed.total)} ({_parts(needed)}), found {size(free.nbytes)} free on "
        f"{free.where}: the run will probably end where memory runs out",
        value=needed.total,
        threshold=free.nbytes,
        evidence=evidence,
        remedy=text,
        commands=commands,
    )


def size(nbytes: int) -> str:
    """`3.4 GiB`."""
    number = float(nbytes)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if number < 999.5:
            return f"{number:.3g} {unit}"
        number /= 1024
    return f"{number:.3g} TiB"


def _remedy(
    forecast: Callable[[str, int, int], Need], spec: RunSpec, free: FreeMemory, dtype: str
) -> tuple[str, tuple[str, ...]]:
    """Options under which the forecast fits: fewer kept vectors, fewer sequences a pass, narrower weights."""
    narrower = [NARROW] if getattr(torch, NARROW).itemsize < getattr(torch, dtype).itemsize else []
    for chosen, budget in product((dtype, *narrower), (spec.memory_budget_bytes, 0)):
        needed = forecast(chosen, spec.micro_batch, budget)
        room = free.nbytes - needed.fixed
        sequences = min(needed.sequences, room // max(1, needed.sequence))
        if sequences < 1 or needed.widened > room:
            continue
        left = (room - sequences * needed.sequence) // MIB
        kept = f"--memory-budget {left}MiB" if needed.kept > left * MIB else ""
        smaller = "--memory-budget 0" if budget < spec.memory_budget_bytes else kept
        options = [
            *([f"--dtype {chosen}"] if chosen != dtype else []),
            *([f"--micro-batch {sequences}"] if sequences < needed.sequences else []),
            *([smaller] if smaller else []),
        ]
        return (
            f"With these options it should fit: about {size(free.nbytes - left * MIB)} without kept vectors.",
            (f"probe-tui CHECKPOINT {' '.join(options)}",),
        )
    least = forecast(dtype, 1, 0)
    return (
        f"No option makes it fit: one sequence a pass takes {size(least.total)}. Take a device with more "
        "memory, end what else runs there, or probe an adapter instead of all weights.",
        (),
    )


def _parts(needed: Need) -> str:
    parts = {
        "weights": needed.weights,
        "optimizer state": needed.optimizer,
        "gradients and their sums": needed.vectors,
        "kept unit vectors": needed.kept,
        f"a micro-batch of {needed.sequences}": needed.sequences * needed.sequence,
        "float32 copies for the virtual step": needed.widened,
    }
    return ", ".join(f"{name} {size(nbytes)}" for name, nbytes in parts.items() if nbytes)


def _libraries(unmet: Iterable[Demand]) -> list[str]:
    return list(dict.fromkeys(demand.library for demand in unmet))


def _range(unmet: Iterable[Demand], library: str) -> str:
    return ",".join(dict.fromkeys(d.range for d in unmet if d.library == library and d.range))
