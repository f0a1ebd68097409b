"""The catalogue is whole: what fires has an entry, and every entry can be acted on."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import probe_engine
import probe_tui
from probe_engine.catalogue import ENTRIES
from probe_engine.report import finding

SOURCE = "\n".join(
    p.read_text()
    for package in (probe_engine, probe_tui)
    for p in Path(str(package.__file__)).parent.rglob("*.py")
    if "catalogue" not in p.parts
)


def test_every_code_in_the_sources_has_an_entry_and_the_reverse() -> None:
    used = set(re.findall(r'"((?:ENV|CKPT|PEFT|OPT|GRAD|ROLL|STAT|RUN)\d{3})"', SOURCE))
    assert used == set(ENTRIES)


@pytest.mark.parametrize("entry", ENTRIES.values(), ids=ENTRIES)
def test_entries_explain_and_remedy(entry) -> None:
    assert len(entry.meaning) > 40
    assert len(entry.origin) > 10
    assert len(entry.by_hand) > 10
    assert len(entry.remedy) > 10
    assert not entry.title.endswith(".")
    assert entry.fault
    assert entry.code.startswith(entry.family)


def test_what_is_fine_carries_no_remedy_and_what_is_not_does() -> None:
    assert finding("OPT007", "ok", "η = 1e-6").remedy.text == ""
    warned = finding("OPT007", "warn", "η = 0", value=0)
    assert warned.remedy.commands == ["probe-tui CHECKPOINT --lr 1e-6"]
    assert warned.value == 0.0
    assert isinstance(warned.value, float)
