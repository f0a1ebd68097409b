"""What a 16-bit format takes from gradients by rounding small numbers to 0."""

from __future__ import annotations

import math
from dataclasses import dataclass

from probe_engine.model.preconditioner import Preconditioner
from probe_engine.model.unit_gradients import UnitGradients, UnitObjective
from probe_engine.vectors import ParameterVector

SCALES = (2.0**12, 2.0**8, 2.0**4)
"""Powers of two, the largest first: one of them keeps large gradients finite."""


@dataclass(frozen=True)
class Underflow:
    """One unit's gradients as the run computes them, against the same ones lifted out of underflow."""

    scale: float
    x_lost: float
    """‖X − X′‖/‖X′‖, X′ the lifted one"""
    py_lost: float
    """‖P(Y − Y′)‖/‖PY′‖"""
    flushed: float
    """share of the entries of X′ and Y′ that are 0 in X and Y without being so"""
    x_dot_py: float
    lifted_x_dot_py: float


def underflow(method: UnitGradients, objective: UnitObjective, p: Preconditioner) -> Underflow | None:
    """Measures a unit twice, the second time with all weights times a power of two.

    X is linear in λ and Y in κ (method.md (1)–(3)), and in floating point a power of two changes the
    exponent alone: what differs after division is underflow and nothing else.

    Returns:
        None where the gradients are not finite, scaled or not.
    """
    run = method.measure(objective)
    if not math.isfinite(run.x.norm() + run.y.norm()):
        return None
    for scale in SCALES:
        measured = method.measure(objective.lifted(scale))
        x, y = measured.x.scaled(1 / scale), measured.y.scaled(1 / scale)
        if math.isfinite(x.norm() + y.norm()):
            py, lifted_py = p(run.y), p(y)
            return Underflow(
                scale,
                _lost(run.x, x),
                _lost(py, lifted_py),
                _flushed((run.x, x), (run.y, y)),
                run.x.dot(py),
                x.dot(lifted_py),
            )
    return None


def _lost(vector: ParameterVector, lifted: ParameterVector) -> float:
    size = lifted.norm()
    return lifted.plus(vector, -1.0).norm() / size if size else 0.0


def _flushed(*pairs: tuple[ParameterVector, ParameterVector]) -> float:
    zero = total = 0
    for vector, lifted in pairs:
        for v, w in zip(vector.tensors, lifted.tensors, strict=True):
            if v is not None and w is not None:
                zero += int(((v == 0) & (w != 0)).sum())
                total += w.numel()
    return zero / total if total else 0.0
