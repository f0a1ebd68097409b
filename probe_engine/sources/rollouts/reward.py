"""The user's reward function, TRL's way: f(prompts, completions, **columns) -> list[float | None]."""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from probe_engine.errors import USAGE, ProbeError

# What user code raises is not ours to foresee; SystemExit would end the run without a word.
_ANYTHING = (Exception, SystemExit)


class RewardFunction:
    """An imported reward function; importing runs its module, as `--reward` asks for.

    Args:
        name: `PKG.MOD:FUNC`; the working directory counts as a place to import from.

    Raises:
        ProbeError: no such name, or its module raises.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        module, colon, attribute = name.partition(":")
        if not (module and colon and attribute):
            raise self._error(f"expected PKG.MOD:FUNC, got {name!r}")
        try:
            with _working_directory_importable():
                function: Any = getattr(importlib.import_module(module), attribute)
        except _ANYTHING as error:
            raise self._error(f"expected to import {name}, got {_one_line(error)}") from error
        if not callable(function):
            raise self._error(f"expected a function, got {type(function).__name__}")
        self._function: Callable[..., Any] = function

    def __call__(
        self,
        prompts: Sequence[Any],
        completions: Sequence[Any],
        completion_ids: Sequence[list[int]],
        columns: Mapping[str, Sequence[Any]],
    ) -> list[float | None]:
        """One reward for each completion, None where the function has no opinion.

        Raises:
            ProbeError: the function raises, or returns something else.
        """
        offered = {
            **columns,
            "prompts": list(prompts),
            "completions": list(completions),
            "completion_ids": list(completion_ids),
        }
        try:
            with _working_directory_importable():
                rewards = self._function(**self._accepted(offered))
        except _ANYTHING as error:
            raise self._error(
                f"expected f(prompts, completions, **columns) to return rewards, it raised {_one_line(error)}"
            ) from error
        return self._checked(rewards, len(completions))

    def _accepted(self, offered: dict[str, Any]) -> dict[str, Any]:
        try:
            parameters = inspect.signature(self._function).parameters.values()
        except (TypeError, ValueError):  # built-in callables may have no signature
            return offered
        if any(p.kind is p.VAR_KEYWORD for p in parameters):
            return offered
        return {p.name: offered[p.name] for p in parameters if p.name in offered}

    def _checked(self, rewards: Any, count: int) -> list[float | None]:
        try:
            result = [None if r is None else float(r) for r in rewards]
        except (TypeError, ValueError, OverflowError) as error:
            raise self._error(
                f"expected {count} numbers or None, got {type(rewards).__name__}: {_one_line(error)}"
            ) from error
        if len(result) != count:
            raise self._error(f"expected {count} rewards, one a completion, got {len(result)}")
        return result

    def _error(self, message: str) -> ProbeError:
        return ProbeError(
            f"--reward {self.name}: {message}",
            "Give a function f(prompts, completions, **columns) -> list[float | None], as trl takes it.",
            commands=("probe-tui CHECKPOINT --prompts prompts.jsonl --reward PKG.MOD:FUNC",),
            exit_code=USAGE,
        )


@contextmanager
def _working_directory_importable() -> Iterator[None]:
    here = os.getcwd()
    if here in sys.path:
        yield
        return
    sys.path.insert(0, here)
    try:
        yield
    finally:
        # The function may have edited the path itself.
        if here in sys.path:
            sys.path.remove(here)


def _one_line(error: BaseException, width: int = 200) -> str:
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"[:width]
