"""Findings: a row each, one in full, by family, and how many ask for attention."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from rich.text import Text

from probe_engine.report import Finding
from probe_tui.plain import MARKS
from probe_tui.renderables.cells import fill, one_line, paragraph, row
from probe_tui.renderables.numbers import number
from probe_tui.renderables.palette import Palette

FAMILIES = {
    "ENV": "Environment",
    "CKPT": "Checkpoint",
    "PEFT": "Adapter",
    "OPT": "Optimizer state",
    "ROLL": "Rollouts",
    "GRAD": "Gradient flow",
    "STAT": "Statistics",
    "RUN": "Run",
}
"""In the order of the pipeline."""
ATTENTION = ("warn", "fail", "crash")
"""The statuses that ask for attention, the worst last."""
TITLE = 22
"""Columns of the title, where there is room for columns."""
ROOMY = 70


@dataclass(frozen=True)
class Attention:
    """How many findings want to be looked at."""

    fail: int
    warn: int

    def __str__(self) -> str:
        """Glyphs and numbers for a tab's title; empty where all is well."""
        return " ".join(f"{MARKS[s]}{n}" for s, n in (("fail", self.fail), ("warn", self.warn)) if n)

    @property
    def words(self) -> str:
        """The same for a line of text."""
        return ", ".join(f"{n} {s}" for s, n in (("fail", self.fail), ("warn", self.warn)) if n)


def attention(findings: Iterable[Finding]) -> Attention:
    """Of what is to be mended: a consequence is folded under its cause. A crash counts as a failure."""
    statuses = [f.status for f, under_cause in causes_first(findings) if not under_cause]
    return Attention(fail=statuses.count("fail") + statuses.count("crash"), warn=statuses.count("warn"))


def grouped(findings: Iterable[Finding]) -> list[tuple[str, list[Finding]]]:
    """By family, under their plain names, in the order of the pipeline; as they came within one."""
    families: dict[str, list[Finding]] = {name: [] for name in FAMILIES.values()}
    for f in findings:
        letters = family(f)
        # A newer engine may have a family that this screen does not know: it is shown all the same.
        families.setdefault(FAMILIES.get(letters, letters), []).append(f)
    return [(name, members) for name, members in families.items() if members]


def family(f: Finding) -> str:
    """The letters of its code."""
    return f.code.rstrip("0123456789")


def causes_first(findings: Iterable[Finding]) -> list[tuple[Finding, bool]]:
    """What needs attention, worst first, then deepest: each cause with its consequences right after it.

    Returns:
        findings, and whether each stands under its cause.
    """
    depths = [*FAMILIES]
    urgent = sorted(
        (f for f in findings if f.status in ATTENTION),
        key=lambda f: (
            -ATTENTION.index(f.status),
            depths.index(family(f)) if family(f) in depths else len(depths),
        ),
    )
    shown = {f.code for f in urgent if not f.cause}
    under: dict[str, list[Finding]] = {}
    for f in urgent:
        if f.cause in shown:
            under.setdefault(f.cause, []).append(f)
    rows: list[tuple[Finding, bool]] = []
    for f in urgent:
        if f.cause not in shown:
            rows.append((f, False))
            # A code that fired twice has its consequences once, after the worse of the two.
            rows += [(consequence, True) for consequence in under.pop(f.code, ())]
    return rows


def finding_row(f: Finding, *, width: int, palette: Palette, under_cause: bool = False) -> Text:
    """Glyph, word, code, title, message; indented where it stands under its cause."""
    title = fill(f.title, TITLE) if width >= ROOMY else one_line(f.title)
    quiet = palette.muted if f.status in ("ok", "skip") else ""
    return row(
        width,
        [
            ("  ↳ " if under_cause else "", palette.muted),
            (f"{MARKS[f.status]} {f.status:<5} ", palette.status(f.status)),
            (f"{f.code:<7} ", palette.muted),
            (f"{title} ", ""),
            (one_line(f.message), quiet),
        ],
    )


def finding_detail(f: Finding, *, width: int, palette: Palette) -> list[Text]:
    """Everything that a finding says, wrapped: what to do comes before the evidence, which may be long."""
    rows = [
        row(
            width,
            [
                (f"{MARKS[f.status]} {f.status} ", palette.status(f.status)),
                (f"{f.code} {one_line(f.title)}", palette.accent),
            ],
        )
    ]

    def say(label: str, text: str, style: str = "") -> None:
        rows.extend(paragraph(width, text, style, first=label, indent=" " * min(len(label), width // 4)))

    say("", f.message)
    if f.cause:
        say("follows from ", f.cause, palette.accent)
    if f.remedy.text:
        say("remedy: ", f.remedy.text)
    for command in f.remedy.commands:
        say("$ ", command, palette.accent)
    if f.value is not None:
        limit = "" if f.threshold is None else f" · threshold {_plain(f.threshold)}"
        say("seen: ", _plain(f.value) + limit)
    for key, value in f.evidence.items():
        if isinstance(value, str) and "\n" in value:
            say("", f"{one_line(key)}:", palette.muted)
            for line in value.splitlines():
                say("  ", line, palette.accent)
        else:
            say(f"{one_line(key)}: ", _plain(value), palette.muted)
    if f.reference:
        say("see ", f.reference, palette.muted)
    if f.duration_ms is not None:
        say("", f"took {number(f.duration_ms)} ms", palette.muted)
    return rows


def _plain(value: Any) -> str:
    """Evidence is JSON; here it is read by people."""
    match value:
        case None:
            return "—"
        case bool() | int() | str():
            return str(value)
        case float():
            return number(value, digits=6)
        case dict():
            return ", ".join(f"{key} {_plain(held)}" for key, held in value.items())
        case list() | tuple():
            return ", ".join(map(_plain, value)) or "none"
        case _:
            return repr(value)
