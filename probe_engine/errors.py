"""What a user may see when a run cannot go on."""

from __future__ import annotations

USAGE = 2
UNREADABLE = 3
ENGINE_DIED = 4
INTERRUPTED = 130


class ProbeError(Exception):
    """Stops the run. Carries what a person needs to mend it.

    Args:
        message: what was expected, what came, what it means.
        remedy: what to do about it, in words.
        code: the finding's code (`CKPT001`), empty for a usage error.
        commands: what to type.
        evidence: names and values that support the message.
        exit_code: the process's exit code (interface.md).
    """

    def __init__(
        self,
        message: str,
        remedy: str = "",
        *,
        code: str = "",
        commands: tuple[str, ...] = (),
        evidence: dict[str, object] | None = None,
        exit_code: int = UNREADABLE,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy
        self.code = code
        self.commands = commands
        self.evidence = evidence or {}
        self.exit_code = exit_code


def memory_ran_out(error: BaseException) -> bool:
    """Does the error say so? Python, torch on a GPU and torch on a CPU say it in different ways."""
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or "can't allocate memory" in str(error)
    )


class UsageError(ProbeError):
    """The command line, environment or configuration file says something impossible."""

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message, remedy, exit_code=USAGE)
