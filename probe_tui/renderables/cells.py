"""Rows of terminal cells: safe to show, wrapped or cut by the width that a terminal gives each character."""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import groupby
from operator import itemgetter

from rich.cells import cell_len, chop_cells, set_cell_size
from rich.text import Text

Cell = tuple[str, str]
"""What to show, and its style."""

# Control characters move the cursor, and bidirectional marks reorder the row: a prompt may hold both.
_UNSAFE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufeff]"
)
# A zero-width joiner or variation selector with nothing beside it swallows the width of its neighbour.
_STRAY = re.compile("(?<![^\\s\u200d])\u200d+|\u200d+(?![^\\s\u200d])|(?<!\\S)\ufe0f+")


_BREAK = re.compile(r"(?<=\s)(?=\S)(?!-?[\d.]+(?:e[-+]?\d+)?\])")
"""Where a line may end: at a space, but not within an interval such as [-0.1, 2e-05]."""


def visible(text: str) -> str:
    """Every character that a terminal would act on, shown as a picture of itself."""
    return _STRAY.sub("", _UNSAFE.sub(_picture, text))


def _picture(match: re.Match[str]) -> str:
    code = ord(match[0])
    if code < 0x20:
        return chr(0x2400 + code)
    return "␡" if code == 0x7F else "\N{REPLACEMENT CHARACTER}"


def one_line(text: str) -> str:
    """White space runs become one space."""
    return visible(" ".join(text.split()))


def cut(text: str, width: int) -> str:
    """On one line of at most `width` cells, with … where something is missing."""
    text = one_line(text)
    if cell_len(text) <= width:
        return text
    return set_cell_size(text, width - 1).rstrip() + "…" if width > 0 else ""


def fill(text: str, width: int) -> str:
    """On one line of exactly `width` cells."""
    return set_cell_size(cut(text, width), width)


def wrap(text: str, width: int) -> list[str]:
    """Lines of at most `width` cells, broken at spaces where possible; line breaks and indents are kept."""
    width = max(width, 2)  # a wide character needs two
    lines = []
    for paragraph in text.expandtabs(4).replace("\r\n", "\n").split("\n"):
        line = ""
        for word in _BREAK.split(visible(paragraph)):
            if line.strip() and cell_len((line + word).rstrip()) > width:
                lines.append(line.rstrip())
                line = ""
            if cell_len((line + word).rstrip()) > width:
                *full, line = chop_cells((line + word).rstrip(), width)
                lines += full
            else:
                line += word
        lines.append(line.rstrip())
    return lines


def row(width: int, parts: Iterable[Cell]) -> Text:
    """One row, cut with … at `width` cells."""
    # Styles are spans: textual reads the base style of a Text in another syntax.
    text = Text(no_wrap=True)
    for style, run in groupby(parts, key=itemgetter(1)):
        text.append(visible("".join(glyphs for glyphs, _ in run)), style or None)
    text.truncate(width, overflow="ellipsis")
    return text


def paragraph(width: int, text: str, style: str = "", *, first: str = "", indent: str = "") -> list[Text]:
    """Wrapped rows; the first one begins with `first`, the others with `indent`."""
    lines = wrap(text, width - max(cell_len(first), cell_len(indent)))
    return [row(width, [((indent if i else first), style), (line, style)]) for i, line in enumerate(lines)]


def stretched(rows: list[Text], height: int) -> list[Text]:
    """Exactly `height` rows: cut, or filled with empty ones."""
    return [*rows, *(Text() for _ in range(height - len(rows)))][: max(height, 0)]


def placard(title: str, reason: str, *, width: int, height: int, style: str) -> list[Text]:
    """A title, and under it why there is nothing to see."""
    return stretched([row(width, [(one_line(title), "")]), *paragraph(width, reason, style)], height)
