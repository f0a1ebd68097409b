"""What a benchmark runs on, and the command line that says so."""

from __future__ import annotations

import argparse
import platform
from dataclasses import dataclass, fields
from pathlib import Path

import peft
import platformdirs
import torch
import transformers

CACHE = Path(platformdirs.user_cache_dir("probe-tui")) / "bench-smollm2"


@dataclass(frozen=True)
class Setting:
    """A model, how it is finetuned, and the size of its batch."""

    model: str = "smollm2"
    """smollm2 or tiny"""
    full: bool = False
    """Full finetuning; else LoRA r=16 on all linear layers."""
    sequences: int = 16
    tokens: int = 96
    """Of a sequence, prompt and response."""
    micro_batch: int = 8
    """Sequences in one pass."""
    device: str = "cpu"
    dtype: str = "float32"
    lean: bool = False
    """Whether the whole probe is the least that gives a verdict: X of (2) alone, one step in both pairings
    and no sweep; else all that it does by default."""
    cache: str = str(CACHE)
    """Where SmolLM2's weights are unpacked to, once."""

    @classmethod
    def of(cls, options: argparse.Namespace) -> Setting:
        """As the command line says."""
        return cls(**{f.name: getattr(options, f.name) for f in fields(cls) if hasattr(options, f.name)})

    def described(self) -> dict[str, object]:
        """Sizes and versions, as results state them."""
        return {
            "model": self.model,
            "adaptation": "full" if self.full else "LoRA r=16, all linear layers",
            "sequences": self.sequences,
            "tokens": self.tokens,
            "micro_batch": self.micro_batch,
            "device": self.device,
            "dtype": self.dtype,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "peft": peft.__version__,
            "threads": torch.get_num_threads(),
            "probe": "lean" if self.lean else "default",
        }


def parser(doc: str, *, rounds: int, sized: bool = True, probed: bool = False) -> argparse.ArgumentParser:
    """The options that benchmarks share.

    Args:
        doc: the script's docstring.
        rounds: how often everything is timed; 0 where nothing is.
        sized: whether the batch's size is an option.
        probed: whether the whole probe runs, whose options then count.
    """
    made = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = Setting()
    made.add_argument("--model", choices=("smollm2", "tiny"), default=default.model)
    made.add_argument(
        "--full", action="store_true", help="full finetuning; else LoRA r=16 on all linear layers"
    )
    if sized:
        made.add_argument("--sequences", type=int, default=default.sequences)
        made.add_argument("--tokens", type=int, default=default.tokens, help="of a sequence")
    made.add_argument("--micro-batch", type=int, default=default.micro_batch)
    if rounds:
        made.add_argument("--rounds", type=int, default=rounds)
    made.add_argument("--device", default=default.device)
    made.add_argument("--dtype", default=default.dtype)
    if probed:
        made.add_argument(
            "--lean",
            action="store_true",
            help="of the whole probe: X of (2) alone, one step in both pairings, no sweep",
        )
    made.add_argument("--cache", default=default.cache)
    made.add_argument("--json", action="store_true")
    return made
