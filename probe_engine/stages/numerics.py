"""Do the numbers depend on how they are computed? Part of `flow`, on one unit and a few short sequences."""

from __future__ import annotations

import random
from collections.abc import Sequence

import torch

from probe_engine.checks import numerics as checks
from probe_engine.checks import surroundings as beside
from probe_engine.events import FindingEvent
from probe_engine.model.preconditioner import Preconditioner
from probe_engine.model.surroundings import Rows, otherwise_padded, surroundings
from probe_engine.model.underflow import SCALES, underflow
from probe_engine.model.unit_gradients import UnitGradients, UnitObjective
from probe_engine.model.unit_gradients.agreement import agreement
from probe_engine.stages import Stage
from probe_engine.types import Policy


def numerics(
    policy: Policy,
    units: Sequence[UnitObjective],
    brief: Sequence[UnitObjective],
    method: UnitGradients,
    plain: UnitGradients,
    p: Preconditioner,
    dtype: torch.dtype,
    *,
    seed: int,
    steady: bool,
    rao_blackwell: bool,
    second_pass: bool,
) -> Stage[UnitGradients]:
    """Checks neighbours, padding, the method and small gradients.

    Args:
        units: the batch's; their sequences are padded and batched.
        brief: an excerpt of each; X and Y of one are compared.
        plain: plain autograd, which `method` is compared with.
        dtype: the coarsest that the model computes in.
        seed: draws the unit that both are tried on.
        steady: whether the forward gives the same twice.
        rao_blackwell: whether X of (2b) will be measured as well.
        second_pass: whether there will be one.

    Returns:
        The method to go on with: `plain` where `method` disagrees with it.
    """
    rows = Rows.of(units) if steady else None
    seen = None if rows is None else surroundings(policy.model, rows)
    yield FindingEvent(finding=beside.batching(dtype, seen, steady=steady))
    shifted = rows is not None and seen is not None and beside.shifts(dtype, seen.left, seen.alone)
    other = otherwise_padded(policy.model, rows) if shifted and rows is not None else None
    yield FindingEvent(finding=beside.padding(dtype, seen, other, steady=steady))

    unit = _sampled(brief, seed)
    narrow = dtype.itemsize <= 2
    scales = SCALES if narrow else (1.0,)
    tried = None
    if method.name != plain.name:
        # In 16 bits entropies' gradients are mostly rounding, by either method.
        both = rao_blackwell and not narrow
        tried = agreement(method, plain, unit, p, scales, rao_blackwell=both, second_pass=second_pass)
    compared = checks.fast_method(method.name, dtype, tried)
    yield FindingEvent(finding=compared)
    trusted = plain if compared.status == "warn" else method

    yield FindingEvent(finding=checks.small_gradients(dtype, underflow(trusted, unit, p) if narrow else None))
    return trusted


def _sampled(units: Sequence[UnitObjective], seed: int) -> UnitObjective:
    """One of those that have a Y, where there are any: of the others nothing of it can be seen."""
    informative = [unit for unit in units if bool(unit.advantages.any()) and not unit.y_cancels]
    return random.Random(seed).choice(informative or list(units))
