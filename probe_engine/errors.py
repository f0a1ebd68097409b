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


class UsageError(ProbeError):
    """The command line, environment or configuration file says something impossible."""

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message, remedy, exit_code=USAGE)
