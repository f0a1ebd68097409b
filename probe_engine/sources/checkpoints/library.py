"""The boundary to transformers, peft, safetensors, tokenizers and torch's loader."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout

from transformers.utils import logging

from probe_engine.errors import ProbeError
from probe_engine.sources.checkpoints.names import writable


@contextmanager
def library_call(refusal: Callable[[str], Exception]) -> Iterator[None]:
    """Runs a library silently; whatever it raises becomes `refusal(description)`.

    Args:
        refusal: makes the error to raise from the library's words.
    """
    try:
        with _quiet():
            yield
    except (ProbeError, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:
        # Given damaged files these libraries raise anything, and a panic of tokenizers' or
        # safetensors' Rust code is no Exception.
        raise refusal(description(error)) from error


def description(error: BaseException) -> str:
    """The error's type and the beginning of its text, on one line."""
    text = " ".join(str(error).split())
    return writable(f"{type(error).__name__}: {text[:240]}{'…' if len(text) > 240 else ''}")


@contextmanager
def _quiet() -> Iterator[None]:
    """No progress bars, no load reports, and nothing on standard output, which is for data."""
    verbosity = logging.get_verbosity()
    bars = logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings(), redirect_stdout(sys.stderr):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
