"""The most memory that each method needs above the loaded model, each in a process of its own (_peak.py).

`step` is the training step in the same micro-batches, `probe` the whole probe with default options. The
methods make X, Y and all dot products and keep no unit gradients; `fused_kept` keeps them. torch.func and
Opacus give X and Y alone, as `fused_first_pass` does. `flat` is the peak of fused at the larger number of
prompts over that at the smaller; `flat_kept` is the same with unit gradients kept, their own size taken off
both. Of full finetuning `…_parameter_lengths` says what a probe needs beside the step's activations: the
weights and Adam's m and v, and its own vectors.

python benchmarks/memory.py [--model smollm2|tiny] [--full] [--sequences 16] [--tokens 96] [--json]
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from _batches import GENERATIONS
from _figures import Limit, show
from _models import adapted, base
from _peak import RUNS, THRESHOLD, peak
from _setting import Setting, parser

GIB = 2**30
LOADED = 3
"""Vectors over the parameters that are there before: weights, m and v."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints one table, or its figures as JSON."""
    made = parser(__doc__, rounds=0, probed=True)
    made.add_argument("--prompts", type=int, nargs=2, default=(8, 64), help="between which it is to be flat")
    made.add_argument("--flat-tokens", type=int, default=32, help="of a sequence there")
    made.add_argument("--runs", nargs="+", choices=RUNS, default=[*RUNS], help="which to look at")
    options = made.parse_args(arguments)
    setting = Setting.of(options)
    vector = vector_bytes(setting)
    found = {run: told(run, setting) for run in options.runs}
    known = {run: value for run, value in found.items() if isinstance(value, int)}
    figures = {
        **setting.described(),
        "MALLOC_MMAP_THRESHOLD_": THRESHOLD,
        "vector_gib": vector / GIB,
        **{f"{run}_gib": v / GIB if isinstance(v, int) else v for run, v in found.items()},
        **over_step(known),
        **(parameter_lengths(known, vector) if setting.full else {}),
        **flatness(replace(setting, tokens=options.flat_tokens), options.prompts, vector),
    }
    show(figures, limits(setting), as_json=options.json)


def limits(setting: Setting) -> dict[str, Limit]:
    """Flat on every model; beside the step on SmolLM2, where activations are what counts."""
    flat = {"flat": Limit("≤", 1.1), "flat_kept": Limit("≤", 1.1)}
    if setting.model != "smollm2":
        return flat
    if setting.full:
        return flat | {"probe_parameter_lengths": Limit("≤", 7)}
    return flat | {"probe_nothing_kept_over_step": Limit("≤", 1.15)}


def over_step(found: dict[str, int]) -> dict[str, float]:
    """Ratios to the step, where it is among what was looked at."""
    if "step" not in found:
        return {}
    return {f"{run}_over_step": value / found["step"] for run, value in found.items() if run != "step"}


def parameter_lengths(found: dict[str, int], vector: int) -> dict[str, float]:
    """What probes need beside the step's activations, in vectors over the parameters."""
    if "step" not in found:
        return {}
    activations = found["step"] - vector  # the rest of the step's is its gradient
    return {
        f"{run}_parameter_lengths": LOADED + (value - activations) / vector
        for run, value in found.items()
        if run.startswith("probe")
    }


def flatness(setting: Setting, prompts: Sequence[int], vector: int) -> dict[str, float]:
    """Peaks at both numbers of prompts, and the larger one's over the smaller's.

    Of full finetuning without kept unit gradients: those of 64 prompts would be 128 models.
    """
    figures = {}
    compared = [("flat", "fused", 0), ("flat_kept", "fused_kept", 2)]
    for name, run, vectors in compared[:1] if setting.full else compared:
        peaks = []
        for count in prompts:
            peaks.append(peak(run, replace(setting, sequences=count * GENERATIONS)))
            narrate(f"{run}, {count} prompts")
            figures[f"{run}_{count}_prompts_gib"] = peaks[-1] / GIB
        less, more = (p - vectors * count * vector for p, count in zip(peaks, prompts, strict=True))
        figures[name] = more / less
    return figures


def told(run: str, setting: Setting) -> int | str:
    """Bytes at most, or why there is no number: a library may be absent, or not take the model."""
    narrate(run)
    try:
        return peak(run, setting)
    except ChildProcessError as error:
        return f"not run: {error}"


def vector_bytes(setting: Setting) -> int:
    """Of one float32 vector over the trainable parameters: a parameter-length."""
    model = adapted(base(setting.model, Path(setting.cache)), full=setting.full)
    return 4 * sum(p.numel() for p in model.parameters() if p.requires_grad)


def narrate(line: str) -> None:
    """On standard error."""
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
