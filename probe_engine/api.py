"""`probe` and `doctor`: the same stages as the command, in the caller's process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from probe_engine.execution import execute
from probe_engine.report import Report
from probe_engine.spec import resolve
from probe_engine.stages.adopt import LiveObjects


def probe(
    target: str | Path | nn.Module,
    *,
    optimizer: torch.optim.Optimizer | None = None,
    batch: Any = None,
    tokenizer: Any = None,
    **options: Any,
) -> Report:
    """Predicts the entropy change of the next step, takes it virtually and measures it.

    From disk: `probe("checkpoint-200", rollouts="completions/")`. In a training script, between two steps:
    `probe(model, optimizer=optimizer, batch=batch)`. With `out="RUN"` the run is written to a folder, which
    `probe-tui --attach RUN` follows and `--replay RUN` plays.

    Args:
        target: a checkpoint's path, or a live model.
        optimizer: the live model's optimizer, of Adam's family. Without it the preconditioner is 1, and
            the entropy change needs `lr=`.
        batch: its rollouts: a sequence of native-format dicts (docs/formats.md), or trl's dict of tensors
            {prompt_ids, prompt_mask, completion_ids, completion_mask, advantages}, equal prompts
            in a row being a group; or a `types.Batch`, taken as it is.
        tokenizer: needed where the batch holds text.
        options: those of the command line, with underscores (`rollouts=`, `micro_batch=`, `lr=`, `out=`, …).

    Returns:
        The report of all that was found: `report.verdict`, `report.findings`, `report.estimates`, …;
        `report.run.exit_code` is 0 where nothing failed. What goes wrong on the way is a finding, and the
        report holds what was found before. The model's weights, gradients, modes and the RNG state are
        what they were.

    Raises:
        ProbeError: an impossible option, or a run folder that can't be written.
    """
    return _run(target, optimizer, batch, tokenizer, options, doctor_only=False)


def doctor(
    target: str | Path | nn.Module,
    *,
    optimizer: torch.optim.Optimizer | None = None,
    batch: Any = None,
    tokenizer: Any = None,
    **options: Any,
) -> Report:
    """Does gradient flow? The findings of `probe`, on one small group and without the measurement.

    Arguments and promises are those of `probe`. Without a batch, a small one of random tokens is made:
    `print(doctor(model, optimizer=optimizer))` works wherever there is a model.

    Returns:
        The report up to `report.gradient_flow`, the chain link by link; each finding that is no `ok` says
        what was expected, what came and, as its `remedy`, what to type.

    Raises:
        ProbeError: as `probe`.
    """
    return _run(target, optimizer, batch, tokenizer, options, doctor_only=True)


def _run(
    target: str | Path | nn.Module,
    optimizer: torch.optim.Optimizer | None,
    batch: Any,
    tokenizer: Any,
    options: dict[str, Any],
    *,
    doctor_only: bool,
) -> Report:
    live = None
    if isinstance(target, nn.Module):
        live = LiveObjects(target, optimizer, batch, tokenizer)
    else:
        options = {**options, "checkpoint": str(target)}
    resolved = resolve(options, flag_origin="call")
    return execute(resolved, until="flow" if doctor_only else "verdict", live=live)
