"""The tokenizer beside the weights."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, PreTrainedTokenizerFast

from probe_engine.errors import ProbeError
from probe_engine.sources.checkpoints.json_file import read_object
from probe_engine.sources.checkpoints.library import library_call

_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "vocab.json",
    "vocab.txt",
    "spiece.model",
    "tokenizer_config.json",
)


@dataclass(frozen=True, slots=True)
class FoundTokenizer:
    """A transformers tokenizer and its folder, or None and why."""

    tokenizer: Any
    folder: Path | None
    problem: str = ""


def read_tokenizer(folders: Iterable[Path]) -> FoundTokenizer:
    """The tokenizer of the first folder that holds one. Never raises: token ids may do without."""
    for folder in folders:
        if not any(os.path.isfile(folder / name) for name in _FILES):
            continue
        try:
            with library_call(ProbeError):
                tokenizer = _reader(folder).from_pretrained(
                    str(folder), local_files_only=True, trust_remote_code=False
                )
                _ = len(tokenizer)
        except ProbeError as error:
            return FoundTokenizer(None, folder, error.message)
        return FoundTokenizer(tokenizer, folder)
    return FoundTokenizer(None, None)


def _reader(folder: Path) -> Any:
    """The class that wrote the files.

    AutoTokenizer goes by the model's type where the files name the generic class, and would give a
    character tokenizer beside a Qwen2 model that model's own special tokens and normalisation.
    """
    config = folder / "tokenizer_config.json"
    if not (os.path.isfile(folder / "tokenizer.json") and os.path.isfile(config)):
        return AutoTokenizer
    generic = read_object(config).get("tokenizer_class") in ("TokenizersBackend", "PreTrainedTokenizerFast")
    return PreTrainedTokenizerFast if generic else AutoTokenizer
