"""GRAD019, GRAD020: log π of a sequence must not depend on what it is scored beside."""

from __future__ import annotations

import torch
from torch import Tensor

from probe_engine.model.precision import tolerance
from probe_engine.model.surroundings import Surroundings
from probe_engine.report import Finding, finding

NOISE = "waits for GRAD015: a forward that differs from itself can't be compared"
TOO_SHORT = "two sequences of 4 tokens or more are needed"
TRAINER = (
    "Train and sample without padding (prompts of one length, per_device_train_batch_size=1), or with a "
    "forward that obeys attention_mask and gets position_ids = attention_mask.cumsum(-1) - 1."
)


def batching(dtype: torch.dtype, seen: Surroundings | None, *, steady: bool) -> Finding:
    """GRAD020.

    Args:
        seen: None where it was not looked at.
        steady: whether the forward gives the same twice.
    """
    if not steady or seen is None:
        return finding("GRAD020", "skip", TOO_SHORT if steady else NOISE)
    threshold = tolerance(dtype)
    mean, largest = _shift(seen.batched, seen.alone)
    said = f"{mean:.2g} nats a token, up to {largest:.2g}"
    if mean <= threshold:
        return finding(
            "GRAD020",
            "ok",
            f"log π of a sequence, alone and beside another: {said}",
            value=mean,
            threshold=threshold,
        )
    return finding(
        "GRAD020",
        "warn",
        "expected the same log π of a sequence alone and beside another, unpadded; it differs by "
        f"{said}, where rounding in {_name(dtype)} explains {threshold:g}: S depends on the neighbours in "
        f"the batch{_experts(dtype)}",
        value=mean,
        threshold=threshold,
        evidence={"largest": largest, "tokens": seen.tokens},
    )


def padding(
    dtype: torch.dtype, seen: Surroundings | None, otherwise_padded: Tensor | None, *, steady: bool
) -> Finding:
    """GRAD019.

    Args:
        seen: None where it was not looked at.
        otherwise_padded: log π [K] with another token in the left padding, where the left one shifts.
        steady: whether the forward gives the same twice.
    """
    if not steady or seen is None:
        return finding("GRAD019", "skip", TOO_SHORT if steady else NOISE)
    if shifts(dtype, seen.batched, seen.alone):
        return finding("GRAD019", "skip", "waits for GRAD020: neighbours alone change the answer")
    (right, _), (left, _) = _shift(seen.right, seen.alone), _shift(seen.left, seen.alone)
    moved = f"padding moves log π by {right:.2g} nats a token on the right, {left:.2g} on the left"
    value, threshold = max(right, left), tolerance(dtype)
    evidence: dict[str, object] = {
        "right": right,
        "left": left,
        "takes position_ids": seen.unplaced is not None,
    }
    if shifts(dtype, seen.right, seen.alone):
        return finding(
            "GRAD019",
            "warn",
            f"expected log π not to depend on padding; {moved}. The probe pads on the right: S, and all that "
            f"is made of it, is wrong where a batch mixes lengths{_experts(dtype)}",
            value=value,
            threshold=threshold,
            evidence=evidence,
        )
    if shifts(dtype, seen.left, seen.alone):
        return finding(
            "GRAD019",
            "warn",
            f"expected log π not to depend on padding; {moved}: {_why(dtype, seen, otherwise_padded)}. "
            "The probe pads on the right and its numbers hold; sampling and training that pad prompts on the "
            f"left, as generate and trl do, see another policy than this one{_experts(dtype)}",
            value=value,
            threshold=threshold,
            evidence=evidence,
            remedy=TRAINER,
            commands=(),
        )
    if seen.unplaced is not None and shifts(dtype, seen.unplaced, seen.alone):
        unplaced, _ = _shift(seen.unplaced, seen.alone)
        return finding(
            "GRAD019",
            "info",
            f"with position_ids, as the probe passes them, {moved}; without them {unplaced:.2g} on the left: "
            "a trainer that pads prompts on the left and passes none, as trl's GRPO, trains on other "
            "log-probabilities than the probe's; its next step is another one where prompts differ in length",
            value=unplaced,
            threshold=threshold,
            evidence=evidence | {"left without position_ids": unplaced},
            remedy=TRAINER,
            commands=(),
        )
    return finding("GRAD019", "ok", moved, value=value, threshold=threshold)


def shifts(dtype: torch.dtype, log_probs: Tensor, alone: Tensor) -> bool:
    """Whether two scorings [K] of the same tokens differ by more than rounding; nan does."""
    return not _shift(log_probs, alone)[0] <= tolerance(dtype)


def _shift(log_probs: Tensor, alone: Tensor) -> tuple[float, float]:
    """Mean and largest |Δ log π|, nats a token."""
    difference = (log_probs - alone).abs()
    return float(difference.mean()), float(difference.max())


def _why(dtype: torch.dtype, seen: Surroundings, otherwise_padded: Tensor | None) -> str:
    if not torch.isfinite(seen.left).all():
        return "masked places overflow to what is no number"
    if otherwise_padded is not None and shifts(dtype, otherwise_padded, seen.left):
        return "other tokens in the padding move it too, so attention_mask is not obeyed"
    if seen.unplaced is None:
        return "what stands in it does not matter, how long it is does; the forward takes no position_ids"
    return "what stands in it does not matter, how long it is does, in spite of position_ids"


def _experts(dtype: torch.dtype) -> str:
    """What else may shift log π as far as a fault."""
    return (
        "" if dtype.itemsize > 2 else f". In {_name(dtype)} experts chosen otherwise do so too: float32 tells"
    )


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
