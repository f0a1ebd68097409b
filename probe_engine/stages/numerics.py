"""Do the numbers depend on how they are computed? Part of `flow`, on one unit and a few short sequences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from probe_engine.checks import numerics as checks
from probe_engine.checks import surroundings as beside
from probe_engine.events import FindingEvent
from probe_engine.model.precision import tolerance
from probe_engine.model.preconditioner import Preconditioner
from probe_engine.model.surroundings import Rows, otherwise_padded, surroundings
from probe_engine.model.underflow import SCALES, underflow
from probe_engine.model.unit_gradients import Loop, Measurement, UnitGradients, UnitObjective
from probe_engine.model.unit_gradients.agreement import agreement
from probe_engine.stages import Stage
from probe_engine.types import Policy


@dataclass(frozen=True)
class Trusted:
    """How the run goes on."""

    method: UnitGradients
    """Plain autograd where the one that was asked for disagrees with it."""
    measured: tuple[Measurement, ...]
    """What it gave of the units that it was tried on; empty where that was let go."""


def numerics(
    policy: Policy,
    units: Sequence[UnitObjective],
    tried: Sequence[UnitObjective],
    method: UnitGradients,
    plain: Loop,
    theirs: Measurement | None,
    p: Preconditioner,
    dtype: torch.dtype,
    *,
    steady: bool,
    rao_blackwell: bool,
    second_pass: bool,
) -> Stage[Trusted]:
    """Checks neighbours, padding, the method and small gradients.

    Args:
        units: the batch's; their sequences are padded and batched.
        tried: a few small ones; X and Y of the first are compared.
        plain: plain autograd, which `method` is compared with.
        theirs: what it gives of that unit, where that is known.
        dtype: the coarsest that the model computes in.
        steady: whether the forward gives the same twice.
        rao_blackwell: whether X of (2b) will be measured as well.
        second_pass: whether there will be one, because vectors of units are too large to be kept.
    """
    rows = Rows.of(units) if steady else None
    seen = None if rows is None else surroundings(policy.model, rows, tolerance(dtype))
    yield FindingEvent(finding=beside.batching(dtype, seen, steady=steady))
    shifted = rows is not None and seen is not None and beside.shifts(dtype, seen.left, seen.alone)
    other = otherwise_padded(policy.model, rows) if shifted and rows is not None else None
    yield FindingEvent(finding=beside.padding(dtype, seen, other, steady=steady))

    unit, *others = tried
    narrow = dtype.itemsize <= 2
    compared = None
    if method.name != plain.name:
        compared = agreement(
            method,
            plain,
            unit,
            p,
            SCALES if narrow else (1.0,),
            # In 16 bits entropies' gradients are mostly rounding, by either method.
            rao_blackwell=rao_blackwell and not narrow,
            second_pass=second_pass,
            theirs=theirs,
            beside=() if narrow or second_pass else others,
        )
    found = checks.fast_method(method.name, dtype, compared)
    yield FindingEvent(finding=found)
    kept = () if compared is None else compared.ours
    trusted = Trusted(plain, ()) if found.status == "warn" else Trusted(method, kept)

    lost = underflow(trusted.method, unit, p) if narrow else None
    yield FindingEvent(finding=checks.small_gradients(dtype, lost))
    return trusted
