"""A linear axis of values over columns of the terminal."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from rich.cells import cell_len

from probe_tui.renderables.cells import Cell, one_line
from probe_tui.renderables.numbers import number
from probe_tui.renderables.palette import Palette

TINY = 1e-300
"""Ranges below this can't be divided into columns."""


@dataclass(frozen=True)
class Axis:
    """Valid once built: finite, ascending, one column or more.

    Raises:
        ValueError: it is not.
    """

    lo: float
    hi: float
    width: int

    def __post_init__(self) -> None:
        if not spans(self.lo, self.hi) or self.width < 1:
            raise ValueError(f"expected an ascending range and columns, got {self}")

    @classmethod
    def over(cls, values: Iterable[float], width: int) -> Axis:
        """The axis that holds 0 and every finite one of `values`; −1 … 1 where there is nothing else."""
        held = [0.0, *(v for v in values if math.isfinite(v))]
        lo, hi = min(held), max(held)
        return cls(lo, hi, width) if spans(lo, hi) else cls(-1.0, 1.0, width)

    def fraction(self, value: float) -> float:
        """0 at `lo`, 1 at `hi`."""
        # Halved, so that the range of the largest floats does not overflow.
        return (value / 2 - self.lo / 2) / (self.hi / 2 - self.lo / 2)

    def column(self, value: float) -> int:
        """Where a value is drawn; values outside lie in the first or last column."""
        return int(min(max(self.fraction(value) * self.width, 0), self.width - 1))

    def centre(self, column: int) -> float:
        """The value in the middle of a column."""
        fraction = (column + 0.5) / self.width
        return self.lo * (1 - fraction) + self.hi * fraction

    def holds(self, value: float) -> bool:
        """Is it on the axis?"""
        return self.lo <= value <= self.hi

    @property
    def zero(self) -> int | None:
        """The column of 0, None where it is off the axis."""
        return self.column(0.0) if self.holds(0.0) else None


def spans(lo: float, hi: float) -> bool:
    """Can columns be laid over lo … hi?"""
    return math.isfinite(lo) and math.isfinite(hi) and hi / 2 - lo / 2 > TINY


def ticks(axis: Axis) -> str:
    """The axis itself; the tick at 0 is the digit."""
    return "".join("0" if column == axis.zero else "─" for column in range(axis.width))


def labels(axis: Axis, unit: str) -> str:
    """Both ends, with the unit where there is room for it."""
    lo, hi = _ends(axis, unit)
    return lo + " " * max(axis.width - cell_len(lo) - cell_len(hi), 0) + hi


def _ends(axis: Axis, unit: str) -> tuple[str, str]:
    unit = one_line(unit)
    for digits, suffix in ((3, f" {unit}" if unit else ""), (3, ""), (2, ""), (1, "")):
        lo, hi = number(axis.lo, digits), number(axis.hi, digits) + suffix
        if len(lo) + 1 + cell_len(hi) <= axis.width:
            return lo, hi
    return "", ""


def direction(width: int, palette: Palette) -> list[Cell]:
    """What left and right mean."""
    for left, right in (("◀ entropy falls", "entropy rises ▶"), ("◀ falls", "rises ▶")):
        room = width - len(left) - len(right)
        if room >= 2:
            return [(left, palette.falls), (" " * room, ""), (right, palette.rises)]
    return []
