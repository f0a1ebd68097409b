"""Progress in tokens, as the passes of a stage tell of it."""

from __future__ import annotations

from probe_engine.events import Progress


class Meter:
    """Counts prompt and response tokens.

    Args:
        stage: whose they are.
        total: tokens of all its passes.
    """

    def __init__(self, stage: str, total: int) -> None:
        self._stage, self._total, self._done = stage, total, 0

    def __call__(self, tokens: int) -> None:
        """So many more are done."""
        self._done += tokens

    @property
    def done(self) -> int:
        """Tokens so far."""
        return self._done

    @property
    def progress(self) -> Progress:
        """So far."""
        return Progress(stage=self._stage, done=self._done, total=self._total)
