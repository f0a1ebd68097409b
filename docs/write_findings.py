"""Writes findings/: one page a family of findings, and their index, from the catalogue."""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path
from types import ModuleType

from probe_engine import catalogue
from probe_engine.catalogue import Entry

FOLDER = Path(__file__).parent / "findings"
WRITTEN = "<!-- Written by docs/write_findings.py from probe_engine/catalogue. -->"

INDEX = """\
# Findings

Everything that the probe looks at has a code. `probe-tui --explain CODE` says what these pages say.

| status | meaning |
|---|---|
| `ok` | looked at, nothing wrong |
| `info` | worth knowing |
| `warn` | the numbers can be had, with a caveat |
| `fail` | the numbers can't be had, or can't be trusted |
| `crash` | the engine itself failed |
| `skip` | could not be looked at; the message says what it waits for |
"""


def families() -> list[ModuleType]:
    """The catalogue's modules that hold findings, by name."""
    modules = [
        importlib.import_module(f"{catalogue.__name__}.{found.name}")
        for found in pkgutil.iter_modules(catalogue.__path__)
    ]
    return [module for module in modules if hasattr(module, "ENTRIES")]


def pages() -> dict[str, str]:
    """File name to contents."""
    texts = {f"{_name(family)}.md": _page(family) for family in families()}
    return texts | {"README.md": _index()}


def _page(family: ModuleType) -> str:
    prefix, _, question = _summary(family).partition(": ")
    head = f"# {prefix}: {question}\n\n{WRITTEN}\n"
    return "\n".join([head, *(_section(entry) for entry in family.ENTRIES)])


def _section(entry: Entry) -> str:
    parts = [
        f"## {entry.code}",
        f"**{entry.title}**: {entry.fault}.",
        entry.meaning,
        *(
            f"*{head}*: {text}"
            for head, text in (("Comes about", entry.origin), ("By hand", entry.by_hand))
            if text
        ),
        f"*Remedy*: {entry.remedy}",
    ]
    if entry.commands:
        parts.append("\n".join(["```", *entry.commands, "```"]))
    if entry.causes:
        parts.append(f"Follows from {', '.join(entry.causes)} where one of them fired.")
    if entry.reference:
        parts.append(f"See <{entry.reference}>")
    return "\n\n".join(parts) + "\n"


def _index() -> str:
    parts = [INDEX, f"{WRITTEN}\n"]
    for family in families():
        page = f"{_name(family)}.md"
        rows = [
            f"| [{entry.code}]({page}#{entry.code.lower()}) | {entry.title} | {entry.fault} |"
            for entry in family.ENTRIES
        ]
        parts.append(
            "\n".join(
                [f"## {_summary(family)}", "", "| code | looks at | fault |", "|---|---|---|", *rows, ""]
            )
        )
    return "\n".join(parts)


def _name(family: ModuleType) -> str:
    return family.__name__.rpartition(".")[2]


def _summary(family: ModuleType) -> str:
    return (family.__doc__ or "").partition("\n")[0]


def main() -> None:
    """Writes every page; pages of families that are gone are removed."""
    FOLDER.mkdir(exist_ok=True)
    for stale in set(FOLDER.glob("*.md")) - {FOLDER / name for name in pages()}:
        stale.unlink()
    for name, text in pages().items():
        (FOLDER / name).write_text(text, "utf-8")


if __name__ == "__main__":
    main()
