"""The columns of the table of units: what each says of a unit, and how it sorts."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache

from probe_engine.report import UnitRow
from probe_tui.renderables.cells import cut, one_line
from probe_tui.renderables.numbers import count, number, share
from probe_tui.renderables.palette import Palette

SHORTEST_PROMPT = 16
"""Columns that the prompt keeps before the numbers beside it give way."""
LONG = 500
"""Characters of a prompt that are looked at: more than a row ever shows."""
GAP = 2
"""What the table puts around each column."""

Rank = float | str | None
"""Ascending; None, for what is unknown, comes last."""


@dataclass(frozen=True)
class Among:
    """What a unit does not know itself."""

    total: float
    """Of which its share is a part."""
    numbers: Mapping[str, int]
    """By id."""


@dataclass(frozen=True)
class Column:
    """One column."""

    title: str
    width: int
    field: str
    """Of the report's `units[]`."""
    rank: Callable[[UnitRow, Among], Rank]
    text: Callable[[UnitRow, Among], str]
    change: Callable[[UnitRow], float | None] = lambda _: None
    """The change of entropy whose sign gives the colour."""
    right: bool = True
    """Numbers stand on the right."""

    def style(self, unit: UnitRow, palette: Palette) -> str:
        """The colour of the sign."""
        change = self.change(unit)
        return "" if change is None else palette.sign(change)


def total_change(units: Iterable[UnitRow]) -> float:
    """Σ −η·r_n: δH₁ of the U-statistic times the number of units."""
    return math.fsum(u.contribution_r for u in units if u.contribution_r is not None)


@lru_cache(maxsize=8)
def columns(width: int) -> tuple[Column, ...]:
    """The numbers that there is room for, then the prompt in what is left."""
    room = 0
    kept: tuple[Column, ...] = ()
    for kept in NUMBERS:
        room = width - sum(c.width + GAP for c in kept) - GAP
        if room >= SHORTEST_PROMPT:
            break
    return (*kept, _prompt(max(room, 1)))


def _change(field: str, title: str, of: Callable[[UnitRow], float | None]) -> Column:
    return Column(title, 9, field, lambda u, _: _largest_first(of(u)), lambda u, _: number(of(u)), of)


def _share(unit: UnitRow, among: Among) -> str:
    change = unit.contribution_r
    part = change / among.total if change is not None and among.total else None
    if part is not None and abs(part) >= 10:
        return ">999%" if part > 0 else "<-999%"  # the changes cancel: shares of their sum say little
    return share(part)


def _spread(unit: UnitRow, _: Among) -> str:
    mean = number(unit.reward_mean, 2)  # two digits: what is cut at the end would mislead
    return mean if unit.reward_mean is None else f"{mean} ± {number(unit.reward_std, 2)}"


def _reward(title: str, width: int, text: Callable[[UnitRow, Among], str]) -> Column:
    return Column(
        title,
        width,
        "reward_mean",
        lambda u, _: None if u.reward_mean is None else -u.reward_mean,
        text,
    )


def _prompt(width: int) -> Column:
    return Column(
        "prompt",
        width,
        "prompt",
        lambda u, _: one_line(u.prompt[:LONG]).casefold(),
        lambda u, _: cut(u.prompt[:LONG], width),
        right=False,
    )


def _largest_first(change: float | None) -> float | None:
    return None if change is None else -abs(change)


_R = _change("contribution_r", "−η·r_n", lambda u: u.contribution_r)
_SHARE = Column("share", 7, "contribution_r", lambda u, _: _largest_first(u.contribution_r), _share)
_S = _change("contribution_s", "+η·s_n", lambda u: u.contribution_s)
_NUMBER = Column(
    "#", 4, "id", lambda u, among: among.numbers.get(u.id), lambda u, among: str(among.numbers.get(u.id, ""))
)
_ROLE = Column("role", 6, "role", lambda u, _: u.role, lambda u, _: u.role, right=False)
_REWARD_SPREAD = _reward("reward ± SD", 14, _spread)
_REWARD = _reward("reward", 8, lambda u, _: number(u.reward_mean, 2))
_TOKENS = Column("tokens", 8, "tokens", lambda u, _: -u.tokens, lambda u, _: count(u.tokens))
_Z = Column(
    "z",
    6,
    "on_policy_z",
    lambda u, _: _largest_first(u.on_policy_z),
    lambda u, _: number(u.on_policy_z, 2),
)
"""Of the on-policy test: far from 0, the unit's responses are not the policy's."""

LARGEST = _R
"""What the table begins with: the largest change of entropy first."""
NUMBERS = (
    (_R, _SHARE, _S, _ROLE, _REWARD_SPREAD, _TOKENS, _Z, _NUMBER),
    (_R, _SHARE, _S, _ROLE, _REWARD_SPREAD, _TOKENS, _NUMBER),
    (_R, _SHARE, _S, _ROLE, _REWARD, _TOKENS, _NUMBER),
    (_R, _SHARE, _S, _ROLE, _REWARD, _NUMBER),
    (_R, _SHARE, _S, _ROLE, _NUMBER),
    (_R, _SHARE, _S, _NUMBER),
    (_R, _SHARE, _NUMBER),
    (_R, _NUMBER),
    (_R,),
)
"""From wide to narrow: the prompt screen has the others."""
