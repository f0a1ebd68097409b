"""Finds the rollouts of a checkpoint: those sampled from its own weights."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from probe_engine.errors import ProbeError
from probe_engine.spec import RunSpec

_BY_STEP = (
    "completions/completions_{step:05d}.parquet",
    "completions_{step:05d}.parquet",
    "completions/{step}.jsonl",
    "rollouts/{step}.jsonl",
    "{step}.jsonl",
)
_OF_ANY_STEP = ("rollouts.jsonl", "rollouts.parquet")
_SUFFIXES = (".jsonl", ".parquet")


@dataclass(frozen=True, slots=True)
class Located:
    """A rollouts file, and the step that its name says (None where it doesn't)."""

    path: Path
    step: int | None = None


def located(spec: RunSpec, step: int | None) -> Located:
    """The file that a run with these options reads: `locate` says how and what it raises."""
    checkpoint = None if spec.checkpoint is None else Path(spec.checkpoint)
    return locate(checkpoint, step, None if spec.rollouts is None else Path(spec.rollouts))


def rollouts_found(spec: RunSpec, step: int | None) -> bool:
    """Whether there is a file to read, or prompts to sample from; a path that was given counts as found."""
    if spec.prompts is not None or spec.rollouts is not None:
        return True
    try:
        located(spec, step)
    except ProbeError:
        return False
    return True


def locate(checkpoint: Path | None, step: int | None, rollouts: Path | None) -> Located:
    """The file to read.

    Checkpoint K's weights sampled the rollouts of step K+1, so those come first; a file that holds
    several steps comes next; those of step K, one step stale, come last.

    Args:
        checkpoint: its folder or file; rollouts are looked for in it and beside it.
        step: K, where it is known.
        rollouts: a file, taken as it is, or a folder to look in instead.

    Raises:
        ProbeError: nothing found; says what was looked for and what is there.
    """
    if rollouts is not None and not os.path.isdir(rollouts):
        if os.path.isfile(rollouts):
            return Located(rollouts)
        found = "something else (a pipe or a device)" if os.path.exists(rollouts) else "nothing"
        raise ProbeError(
            f"--rollouts: expected a file or a folder, found {found} at {rollouts}",
            "Check the path.",
            code="ROLL013",
        )
    folders = [rollouts] if rollouts is not None else _around(checkpoint)
    candidates: list[Located] = []
    if step is not None:
        candidates += _candidates(folders, step + 1)
    candidates += [Located(folder / name) for folder in folders for name in _OF_ANY_STEP]
    candidates += [Located(path) for folder in folders for path in _only_log(folder, rollouts is not None)]
    if step is not None:
        candidates += _candidates(folders, step)
    for candidate in candidates:
        if os.path.isfile(candidate.path):
            return candidate
    raise _nothing(folders, step)


def _around(checkpoint: Path | None) -> list[Path]:
    if checkpoint is None:
        return []
    checkpoint = checkpoint.absolute()
    return [checkpoint, checkpoint.parent] if checkpoint.is_dir() else [checkpoint.parent]


def _candidates(folders: list[Path], step: int) -> list[Located]:
    return [Located(folder / name.format(step=step), step) for folder in folders for name in _BY_STEP]


def _only_log(folder: Path, asked_for: bool) -> list[Path]:
    """The one log file of a folder of completions; of several none is taken, as any would be a guess."""
    logs = _logs(folder / "completions")
    if asked_for and not logs:
        logs = _logs(folder)
    dated = re.compile(r"(completions_)?\d+\.(parquet|jsonl)")
    return logs if len(logs) == 1 and not dated.fullmatch(logs[0].name) else []


def _logs(folder: Path) -> list[Path]:
    return sorted(p for p in folder.glob("*") if p.suffix in _SUFFIXES) if folder.is_dir() else []


def _nothing(folders: list[Path], step: int | None) -> ProbeError:
    steps = () if step is None else (step + 1, step)
    names = [*(name.format(step=s) for s in steps for name in _BY_STEP[:3]), *_OF_ANY_STEP]
    there = [str(p) for folder in folders for p in (*_logs(folder), *_logs(folder / "completions"))]
    where = " and ".join(str(folder) for folder in folders) or "no folder"
    of = "" if step is None else f" of step {step + 1} (sampled from the weights of checkpoint {step})"
    return ProbeError(
        f"expected rollouts{of} in {where}, found none that fit; looked for {', '.join(names)}"
        + (f"; there are {', '.join(there[:8])}" if there else ""),
        "Say where the rollouts lie, or sample some here from prompts and a reward function.",
        code="ROLL017",
        commands=(
            "probe-tui CHECKPOINT --rollouts PATH",
            "probe-tui CHECKPOINT --prompts prompts.jsonl --reward PKG.MOD:FUNC",
        ),
        evidence={"looked_in": [str(folder) for folder in folders], "files": there[:50]},
    )
