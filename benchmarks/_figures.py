"""What a benchmark prints: its setting and its figures, some beside a limit."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Literal


@dataclass(frozen=True)
class Limit:
    """What a figure is to be."""

    sign: Literal["≤", "≥", "<"]
    value: float

    def met(self, found: float) -> bool:
        """Whether it is."""
        match self.sign:
            case "≤":
                return found <= self.value
            case "≥":
                return found >= self.value
            case "<":
                return found < self.value

    def __str__(self) -> str:
        return f"{self.sign} {self.value:g}"


def show(figures: Mapping[str, object], limits: Mapping[str, Limit], *, as_json: bool) -> None:
    """Prints a table, or one object in which `limits` is a key of its own."""
    if as_json:
        stated = {name: asdict(limit) for name, limit in limits.items() if name in figures}
        print(json.dumps({**figures, "limits": stated}, indent=2, ensure_ascii=False))
        return
    width = max(map(len, figures))
    for name, value in figures.items():
        print(f"{name:<{width}}  {written(value):<12}  {limits.get(name, '')}".rstrip())


def written(value: object) -> str:
    """A figure to three decimals, or to three digits where it is small."""
    if not isinstance(value, float):
        return str(value)
    return f"{value:.3f}" if abs(value) >= 0.01 or value == 0 else f"{value:.2e}"
