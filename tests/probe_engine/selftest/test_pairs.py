"""Two faults at once: both are named, and neither is blamed on the other.

An injection spoils what its lab hands out. Handed the same run again, as the first one left it, a second
injection spoils it further, and examines both.
"""

from __future__ import annotations

import random
from contextlib import ExitStack
from itertools import combinations
from pathlib import Path
from types import ModuleType
from unittest.mock import patch

import pytest

from probe_engine.catalogue import ENTRIES
from probe_engine.selftest import injections
from probe_engine.selftest.injection import Injection
from probe_engine.selftest.injections import INJECTIONS
from probe_engine.selftest.lab import Lab, Objects
from probe_engine.selftest.trial import fired
from probe_tui.renderables.findings import causes_first

PAIRS = 100
SEED = 0

ON_DISK = (
    *("CKPT006", "CKPT007", "CKPT008"),
    *("OPT001", "OPT002", "OPT003", "OPT004", "OPT005", "OPT006", "OPT007", "OPT008"),
    *("ROLL009", "ROLL010", "ROLL016", "ROLL017"),
)
IN_MEMORY = (
    *("OPT009", "OPT011"),
    *("GRAD006", "GRAD007", "GRAD009", "GRAD010", "GRAD011", "GRAD012", "GRAD013", "GRAD015"),
    *("GRAD016", "GRAD019", "GRAD020", "GRAD021", "GRAD023"),
)
"""Without GRAD008: `fused`, with which pairs are examined, gets X and Y from one reverse pass."""
AROUND = ("PEFT002", "PEFT003", "PEFT004", "GRAD001", "GRAD002")
"""Whatever needs a gradient waits for these."""
BEFORE_A_GRADIENT = ("OPT009", "OPT011")
ROWS = ("ROLL001", "ROLL003", "ROLL004", "ROLL006", "ROLL012", "ROLL013", "ROLL014", "ROLL015")
"""Of a batch that is handed over: spoiled last."""

HIDDEN = (
    {"OPT001", "OPT002", "OPT003", "OPT004", "OPT005", "OPT006", "OPT008", "CKPT007"},  # one optimizer.pt
    {"OPT001", "OPT007"},
    {"OPT007", "CKPT007"},
    {"CKPT006", "OPT008"},  # no gradient to compare states with
    {"ROLL017", "ROLL010"},  # both rewrite the one table
    {"ROLL017", "ROLL016"},
    {"GRAD011", "GRAD021"},  # what a check waits for
    {"GRAD015", "GRAD019", "GRAD020", "GRAD021"},
    {"GRAD007", "GRAD023"},  # the same head, unread and unused
    {"GRAD009", "GRAD010"},
    {"GRAD016", "OPT009"},  # both put new parameters in place of old ones
    {"GRAD021", "OPT009"},
)
"""Of these, one at a time can be seen."""

BY_CODE = {injection.code: injection for injection in reversed(INJECTIONS)}


class Shared(Lab):
    """Hands out one copy of the run again and again, as it was left."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._checkpoint: Path | None = None
        self._objects: Objects | None = None  # type: ignore[assignment]

    def folder(self) -> Path:
        return self._lab.folder()

    def checkpoint(self) -> Path:
        self._checkpoint = self._checkpoint or self._lab.checkpoint()
        return self._checkpoint

    def objects(self) -> Objects:
        self._objects = self._objects or self._lab.objects()
        return self._objects


class Spoiled(Exception):
    """Raised in place of an examination."""


def spoil(injection: Injection, lab: Lab) -> None:
    """What the injection does before it examines."""
    families = [module for module in vars(injections).values() if isinstance(module, ModuleType)]
    with ExitStack() as patched:
        for module in families:
            for name in {"doctor", "probe"} & vars(module).keys():
                patched.enter_context(patch.object(module, name, side_effect=Spoiled))
        with pytest.raises(Spoiled):
            injection.inject(lab)


def pairs() -> list[tuple[str, str]]:
    """What is spoiled first, and what second and examined."""
    possible: list[tuple[str, str]] = [
        *combinations(ON_DISK, 2),
        *combinations(IN_MEMORY, 2),
        *((first, second) for first in IN_MEMORY for second in ROWS),
        *((first, second) for first in BEFORE_A_GRADIENT for second in AROUND),
    ]
    seen = [pair for pair in possible if not any(set(pair) <= one for one in HIDDEN)]
    return random.Random(SEED).sample(seen, PAIRS)


@pytest.mark.parametrize(("first", "second"), pairs(), ids=str)
def test_two_faults_are_both_named(first: str, second: str, lab: Lab) -> None:
    shared = Shared(lab)
    spoil(BY_CODE[first], shared)
    report = BY_CODE[second].inject(shared)

    roots, folded = fired(report)
    assert {first, second} <= {*roots, *folded}, (roots, folded)
    causes = {f.code: f.cause for f in report.findings if f.cause}
    for code, other in ((first, second), (second, first)):
        # One may follow from the other, where the catalogue says so; from nothing else.
        assert code in roots or (causes[code] == other and other in ENTRIES[code].causes), causes
    listed = [found.code for found, _ in causes_first(report.findings) if found.code in (first, second)]
    assert listed[0] in roots
    assert set(listed) == {first, second}
