"""What the catalogue says of one finding."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Entry:
    """One finding as plain data; `--explain`, `--list-checks` and the docs read it."""

    code: str
    title: str
    """What is looked at: reads well beside any status."""
    fault: str
    """What is wrong where it fires."""
    meaning: str
    """What it means for the numbers and for the run."""
    remedy: str
    commands: tuple[str, ...] = ()
    reference: str = ""
    causes: tuple[str, ...] = ()
    """Codes that explain this one where they fired before it, the deepest first."""
    origin: str = ""
    """How it comes about."""
    by_hand: str = ""
    """How to see it without this tool."""

    @property
    def family(self) -> str:
        """The letters of the code: ENV, CKPT, PEFT, OPT, GRAD, ROLL, STAT, RUN."""
        return self.code.rstrip("0123456789")
