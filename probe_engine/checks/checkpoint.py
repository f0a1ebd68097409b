"""CKPT: findings on what was read of a checkpoint."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from probe_engine.report import Finding, finding
from probe_engine.sources.checkpoints.names import listed, shown
from probe_engine.sources.checkpoints.step import Step
from probe_engine.sources.checkpoints.tokenizer import FoundTokenizer
from probe_engine.sources.checkpoints.training_arguments import FILE_NAME, TrainingArguments


def recognised(format_name: str, step: Step) -> Finding:
    """CKPT001: the layout is known; `info` where the trainer's own record of the step is damaged."""
    at = "" if step.value is None else f", step {step.value}"
    if step.problem:
        return finding(
            "CKPT001",
            "info",
            f"{format_name}{at}; the trainer's record of the step could not be read: {step.problem}",
            remedy="Nothing, unless the step matters: rollouts are matched to it.",
            commands=(),
        )
    return finding("CKPT001", "ok", f"{format_name}{at}")


def number_format(named: Iterable[tuple[str, Tensor]]) -> Finding:
    """CKPT009: which weights have no gradient because of their format?"""
    narrow: dict[torch.dtype, list[str]] = {}
    count = 0
    for name, weight in named:
        count += 1
        if not weight.is_floating_point() or weight.dtype.itemsize < 2:
            narrow.setdefault(weight.dtype, []).append(name)
    if not narrow:
        return finding("CKPT009", "ok", f"{count} tensors, all floating-point")
    names = [name for held in narrow.values() for name in held]
    formats = ", ".join(str(dtype).removeprefix("torch.") for dtype in narrow)
    return finding(
        "CKPT009",
        "info",
        f"{len(names)} of {count} tensors are quantised ({formats}; {shown(names)}): they have no gradient, "
        "and what is said is about the other parameters",
        value=len(names),
        threshold=0,
        evidence={"formats": formats, "parameters": listed(names)},
    )


def keys_with_a_place(unexpected: Sequence[str], tensors: int) -> Finding:
    """CKPT005: did every key of the files find its parameter?"""
    if not unexpected:
        return finding("CKPT005", "ok", f"all {tensors} keys are the model's")
    return finding(
        "CKPT005",
        "fail",
        f"expected the model's keys only, found {len(unexpected)} of {tensors} without a place "
        f"({shown(unexpected)}): the files are of another model, or of one with more parts",
        value=len(unexpected),
        threshold=0,
        evidence={"unexpected": listed(unexpected)},
    )


def finite_weights(named: Iterable[tuple[str, Tensor]]) -> Finding:
    """CKPT006: is every weight a finite number?"""
    count = 0
    broken = []
    for name, parameter in named:
        count += 1
        weight = parameter.detach()
        if weight.is_floating_point() and not _finite(weight):
            broken.append(name)
    if not broken:
        return finding("CKPT006", "ok", f"{count} tensors, all finite")
    return finding(
        "CKPT006",
        "fail",
        f"expected finite weights, found NaN or infinity in {len(broken)} of {count} tensors "
        f"({shown(broken)}): log-probabilities and gradients are no numbers",
        value=len(broken),
        threshold=0,
        evidence={"parameters": listed(broken)},
    )


def _finite(weight: Tensor) -> bool:
    """A sum is finite only if all its terms are, and quicker made; one that overflowed says nothing."""
    return bool(torch.isfinite(weight.sum())) or bool(torch.isfinite(weight).all())


def read_without_unpickling(arguments: TrainingArguments) -> Finding:
    """CKPT007: nothing was executed; `info` where that left the trainer's arguments unknown."""
    if arguments.values:
        return finding(
            "CKPT007",
            "ok",
            f"{len(arguments.values)} plain values of {FILE_NAME} read statically, nothing executed",
        )
    return finding(
        "CKPT007",
        "info",
        f"the trainer's arguments are unknown ({arguments.note}): loss type, lengths and temperature come "
        "from options or defaults",
        remedy="Say what differs from the defaults.",
        commands=("probe-tui CHECKPOINT --loss-type dapo --max-completion-length 512",),
    )


def tokenizer_fits(found: FoundTokenizer, rows: int) -> Finding:
    """CKPT008: is there a tokenizer, and does the embedding know all its tokens?

    Args:
        found: what was read.
        rows: of the input embedding.
    """
    if found.tokenizer is None:
        lacking = found.problem or "there are no tokenizer files"
        return finding(
            "CKPT008",
            "warn" if found.problem else "info",
            f"no tokenizer ({lacking}): rollouts must hold token ids",
        )
    size = len(found.tokenizer)
    if size <= rows:
        return finding(
            "CKPT008", "ok", f"{size} tokens, embedding of {rows} rows", value=size, threshold=rows
        )
    return finding(
        "CKPT008",
        "fail",
        f"expected a tokenizer of at most {rows} tokens, the embedding's rows, found {size}: it belongs to "
        "another model, or the embedding was never resized",
        value=size,
        threshold=rows,
    )
