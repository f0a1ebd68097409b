"""Do the installed libraries fit what the packages themselves ask for?"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
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
    there = {library: installed(library) for library in LIBRARIES}
    return tuple(
        Demand(package, library, range_, there[library])
        for package in _ASKING
        for library, range_ in _asked_by(package)
    )


def installed(package: str) -> str | None:
    """The version of an installed package, None where there is none."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


@cache
def _asked_by(package: str) -> tuple[tuple[str, str], ...]:
    """Libraries and their ranges, read once: parsing these lines takes longer than a small model's run."""
    try:
        lines = requires(package) or ()
    except PackageNotFoundError:  # run from its sources, without having been installed
        return ()
    return tuple(
        (library, str(requirement.specifier))
        for requirement in map(Requirement, lines)
        if (library := canonicalize_name(requirement.name)) in LIBRARIES
        # transformers asks for torch under an extra of that name.
        and (requirement.marker is None or requirement.marker.evaluate({"extra": "torch"}))
    )
