"""GRAD017, GRAD018: is the way in which gradients are computed good enough?"""

from __future__ import annotations

import torch

from probe_engine.model.underflow import Underflow
from probe_engine.model.unit_gradients.agreement import Agreement
from probe_engine.report import Finding, finding

METHOD_ERROR = {torch.float64: 1e-6, torch.float32: 1e-4, torch.float16: 0.03, torch.bfloat16: 0.25}
"""Relative error that rounding explains (method.md §5, across attention backends). Two healthy methods
were seen at 8e-9, 2e-6, 9e-3 and 9e-2; norms that compute in float32 limit float64."""

LOST = 0.01
"""Share of a gradient's norm that underflow may take: twenty roundings of float16."""


def fast_method(name: str, dtype: torch.dtype, seen: Agreement | None) -> Finding:
    """GRAD017.

    Args:
        seen: None where the method is plain autograd itself.
    """
    if seen is None:
        return finding("GRAD017", "skip", f"{name} is plain autograd itself: nothing to compare")
    expected = f"expected {name} to give what plain autograd gives"
    if seen.raised:
        return finding(
            "GRAD017",
            "warn",
            f'{expected}, on unit {seen.unit_id} it raised "{seen.raised}": the run goes on with loop',
            value=seen.raised,
            evidence={"unit": seen.unit_id},
        )
    if not seen.errors:
        return finding(
            "GRAD017",
            "skip",
            "waits for GRAD007, GRAD008 and GRAD011: no finite gradient of every parameter to compare with",
        )
    threshold = METHOD_ERROR.get(dtype, METHOD_ERROR[torch.bfloat16])
    what, error = seen.worst
    if error <= threshold:
        return finding(
            "GRAD017",
            "ok",
            f"{name} agrees with plain autograd on unit {seen.unit_id}: relative error {error:.1g}",
            value=error,
            threshold=threshold,
        )
    return finding(
        "GRAD017",
        "warn",
        f"{expected}, up to a relative error of {threshold:g} in {_name(dtype)}; on unit {seen.unit_id} "
        f"{what} is off by {error:.2g}: the run goes on with loop",
        value=error,
        threshold=threshold,
        evidence={"unit": seen.unit_id, "errors": dict(seen.errors)},
    )


def small_gradients(dtype: torch.dtype, seen: Underflow | None) -> Finding:
    """GRAD018.

    Args:
        dtype: what the model computes in.
        seen: None where it was not looked for, or the gradients are not finite.
    """
    if dtype.itemsize > 2:
        smallest = torch.finfo(dtype).tiny
        return finding("GRAD018", "ok", f"{_name(dtype)} holds gradients down to {smallest:.0e}")
    if seen is None:
        return finding("GRAD018", "skip", "waits for GRAD011: gradients are not finite")
    lost = max(seen.x_lost, seen.py_lost)
    evidence = {
        "scale": seen.scale,
        "lost of X": seen.x_lost,
        "lost of P·Y": seen.py_lost,
        "entries flushed to 0": seen.flushed,
        "X·PY": seen.x_dot_py,
        "X·PY without underflow": seen.lifted_x_dot_py,
    }
    if lost <= LOST:
        return finding(
            "GRAD018",
            "ok",
            f"gradients in {_name(dtype)} lose {lost:.1g} of their norm to underflow",
            value=lost,
            threshold=LOST,
            evidence=evidence,
        )
    return finding(
        "GRAD018",
        "warn",
        f"expected gradients that {_name(dtype)} can hold; underflow takes {seen.x_lost:.1%} of X and "
        f"{seen.py_lost:.1%} of P·Y in norm, {seen.flushed:.1%} of their entries become 0, and X·PY of one "
        f"unit is {seen.x_dot_py:.4g} where it would be {seen.lifted_x_dot_py:.4g}",
        value=lost,
        threshold=LOST,
        evidence=evidence,
    )


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
