"""Units: what was measured of each prompt."""

from __future__ import annotations

from typing import Literal

import msgspec

from probe_engine.report.findings import Number


class ResponseRow(msgspec.Struct, frozen=True, kw_only=True):
    text: str
    length: int
    terminated: bool
    reward: Number
    advantage: Number
    S: Number
    c: Number


class UnitRow(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    prompt: str
    role: Literal["E", "U"]
    G: int
    tokens: int
    """Response tokens."""
    reward_mean: Number
    reward_std: Number
    S: list[Number]
    advantages: list[Number]
    x_norm: Number
    y_norm: Number
    py_norm: Number
    x_dot_py: Number
    s: Number = None
    t: Number = None
    r: Number = None
    contribution_s: Number = None
    """+η·s_n: left of zero, entropy falls."""
    contribution_r: Number = None
    """−η·r_n: left of zero, entropy falls."""
    x_norm_rb: Number = None
    """With X of (2b), as all that end so."""
    x_dot_py_rb: Number = None
    s_rb: Number = None
    r_rb: Number = None
    t_rb: Number = None
    contribution_s_rb: Number = None
    contribution_r_rb: Number = None
    on_policy_z: Number = None
    covariance: Number = None
    """The unit's part of each baseline; the parts of all units add up to it."""
    discriminant: Number = None
    responses: list[ResponseRow]


class Influence(msgspec.Struct, frozen=True, kw_only=True):
    ids: list[str]
    K: list[list[Number]]
    """K[u][v] = η·X_u·P Y_v: training on v moves the entropy of u by this much."""
    K_rb: list[list[Number]] | None = None
    """The same with X of (2b)."""


class Histogram(msgspec.Struct, frozen=True, kw_only=True):
    edges: list[float]
    counts: list[int]
    nan: int
    underflow: int
    overflow: int
    zeros: int = 0
    """How many of the counted values are exactly 0: they lie in the bin that begins there."""


class Histograms(msgspec.Struct, frozen=True, kw_only=True):
    s: Histogram | None = None
    """Of +η·s_n, over E."""
    r: Histogram | None = None
    """Of −η·r_n, over all units."""
    s_rb: Histogram | None = None
    """The same with X of (2b)."""
    r_rb: Histogram | None = None
    log_w: Histogram | None = None
    """Of log w = S⁺ − S, the first step and pairing of `realized`."""
