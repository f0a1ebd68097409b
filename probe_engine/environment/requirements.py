"""Do the installed libraries fit what the packages themselves ask for?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

LIBRARIES = ("torch", "transformers", "peft")
_ASKING = ("probe-tui", "transformers", "peft")


@dataclass(frozen=True, slots=True)
class Demand:
    """What one package's own metadata asks of another."""

    package: str
    library: str
    range: str
    installed: str | None
    """The library's version, None where it is not installed."""

    @property
    def met(self) -> bool:
        """Whether the installed version lies in the range."""
        if self.installed is None:
            return False
        # A nightly build of the right release will do.
        return Requirement(f"x{self.range}").specifier.contains(self.installed, prereleases=True)


def demands() -> tuple[Demand, ...]:
    """What this package, transformers and peft ask of torch, transformers and peft, in that order."""
    return tuple(demand for package in _ASKING for demand in _demands_of(package))


def installed(package: str) -> str | None:
    """The version of an installed package, None where there is none."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _demands_of(package: str) -> Iterator[Demand]:
    try:
        lines = requires(package) or ()
    except PackageNotFoundError:  # run from its sources, without having been installed
        return
    for line in lines:
        asked = Requirement(line)
        library = canonicalize_name(asked.name)
        # transformers asks for torch under an extra of that name.
        applies = asked.marker is None or asked.marker.evaluate({"extra": "torch"})
        if library in LIBRARIES and applies:
            yield Demand(package, library, str(asked.specifier), installed(library))
