"""Keeps the rows of one training step: the one whose samples come from the checkpoint's weights."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from probe_engine.errors import ProbeError
from probe_engine.sources.rollouts.record import BadRow, RolloutSource


def at_one_step(source: RolloutSource, checkpoint: int | None, named: int | None = None) -> RolloutSource:
    """The rows of step K+1 of checkpoint K, else of step K, where rows carry several steps.

    Args:
        checkpoint: K, None where it is not known.
        named: the step in the file's name, for rows that carry none.

    Raises:
        ProbeError: several steps, and none of them is K+1 or K.
    """
    counts = Counter(row.step for row in source.rows if row.step is not None)
    if len(counts) <= 1:
        return replace(source, step=next(iter(counts), named))
    wanted = () if checkpoint is None else (checkpoint + 1, checkpoint)
    step = next((s for s in wanted if s in counts), None)
    if step is None:
        raise ProbeError(
            f"{source.path}: expected rollouts of "
            + ("one step" if checkpoint is None else f"step {checkpoint + 1}, those of this checkpoint")
            + f", got rows of the steps {_listed(sorted(counts))}",
            "Point --rollouts at a file with the rows of one step.",
            code="ROLL017",
            commands=("probe-tui CHECKPOINT --rollouts PATH",),
        )
    undated = [
        BadRow(row.line, "no step, while other rows have one") for row in source.rows if row.step is None
    ]
    others = counts.total() - counts[step]
    return replace(
        source,
        rows=tuple(row for row in source.rows if row.step == step),
        bad=tuple(sorted((*source.bad, *undated), key=lambda row: row.line)),
        notes=(*source.notes, f"{others} rows of other steps set aside"),
        step=step,
    )


def _listed(steps: list[int], at_most: int = 8) -> str:
    shown = ", ".join(map(str, steps[:at_most]))
    return shown if len(steps) <= at_most else f"{shown}, … {steps[-1]}"
