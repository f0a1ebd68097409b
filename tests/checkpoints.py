"""Runs as trl leaves them on disk, small and written in a second: base, checkpoint, rollouts beside it."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
import tiny
import written

STEP = 2
"""The checkpoint's step; its weights sampled the rollouts of the next."""
LIMIT = 7
"""The trainer's max completion length, tokens."""
Kind = Literal["lora", "full"]
Row = dict[str, Any]


def run(folder: Path, kind: Kind = "lora", *, prompts: int = 8, responses: int = 4, layers: int = 2) -> Path:
    """`base/`, `run/checkpoint-2/` and `run/completions/` below a folder; returns the checkpoint.

    The LoRA checkpoint names its base relative to itself, so that the whole folder may be copied.
    """
    name, depth = ("llama", "num_hidden_layers") if kind == "lora" else ("gpt2", "n_layer")
    model = written.base_model(folder / "base", name, **{depth: layers})
    checkpoint = folder / "run" / f"checkpoint-{STEP}"
    # A small rate: importance weights near 1, so that nothing above info fires on the healthy run.
    written.checkpoint(
        tiny.with_lora(model) if kind == "lora" else model,
        checkpoint,
        steps=STEP,
        learning_rate=1e-5,
        max_completion_length=LIMIT,
        num_generations=responses,
        per_device_train_batch_size=responses,
    )
    if kind == "lora":
        edit_json(checkpoint / "adapter_config.json", base_model_name_or_path="../../base")
    (folder / "run" / "completions").mkdir()
    pq.write_table(pa.Table.from_pylist(rows(prompts, responses)), completions(checkpoint))
    return checkpoint


def completions(checkpoint: Path) -> Path:
    """The parquet table of the rollouts that the checkpoint's weights sampled."""
    return checkpoint.parent / "completions" / f"completions_{STEP + 1:05d}.parquet"


def rows(prompts: int = 8, responses: int = 4, seed: int = 0) -> list[Row]:
    """trl's columns: letters as text, a reward that differs within every group, its centred advantage."""
    rng = random.Random(seed)

    def word(low: int, high: int) -> str:
        return "".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(low, high)))

    table: list[Row] = []
    for index in range(prompts):
        prompt = f"{chr(ord('a') + index % 26)}{word(2, 5)}"
        rewards = [float(g == 0) + rng.random() for g in range(responses)]
        mean = sum(rewards) / responses
        table += [
            {
                "step": STEP + 1,
                "prompt": prompt,
                "completion": word(1, LIMIT),
                "letters": r,
                "advantage": r - mean,
            }
            for r in rewards
        ]
    return table


def lengths(completions: list[str], **_: Any) -> list[float]:
    """A reward function, `checkpoints:lengths`."""
    return [float(len(text)) for text in completions]


def native(path: Path, records: list[Row]) -> Path:
    """The rows in the native format, JSON Lines."""
    lines = [
        {("reward" if k == "letters" else "response" if k == "completion" else k): v for k, v in row.items()}
        for row in records
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    return path


def edit_json(path: Path, **changes: Any) -> None:
    """Rewrites a JSON object with some values changed."""
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | changes), "utf-8")


class Planted:
    """Makes a folder when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.trace),)
