"""Themes: Textual's own, one for colour blindness, one without colour; and the palette of each."""

from __future__ import annotations

from textual.theme import BUILTIN_THEMES, Theme

from probe_tui.renderables.palette import COLOURBLIND, DEFAULT, MONO, Palette

_COLOURBLIND = Theme(
    name="probe-colourblind",
    primary="#0072b2",
    secondary="#56b4e9",
    warning="#e69f00",
    error="#d55e00",
    success="#009e73",
    accent="#cc79a7",
    dark=True,
)
_MONO = Theme(
    name="probe-mono",
    primary="#ffffff",
    secondary="#ffffff",
    warning="#ffffff",
    error="#ffffff",
    success="#ffffff",
    accent="#ffffff",
    foreground="#ffffff",
    background="#000000",
    surface="#000000",
    panel="#000000",
    dark=True,
)
THEMES = (
    *(BUILTIN_THEMES[name] for name in ("textual-dark", "textual-light", "nord", "gruvbox")),
    _COLOURBLIND,
    _MONO,
)
"""In the order in which `t` goes through them."""


def palette_of(theme: str) -> Palette:
    """The styles that go with a theme."""
    return {_COLOURBLIND.name: COLOURBLIND, _MONO.name: MONO}.get(theme, DEFAULT)
