"""Styles: parseable, apart for colour-blind eyes, and without colour where none is wanted."""

from __future__ import annotations

import dataclasses
import itertools
import math
from typing import Any

import pytest
from rich.style import Style

from probe_tui.renderables.palette import COLOURBLIND, DEFAULT, MONO, Palette

# Machado, Oliveira and Fernandes 2009, severity 1, on linear RGB.
BLINDNESS = {
    "none": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "protanopia": (
        (0.152286, 1.052583, -0.204868),
        (0.114503, 0.786281, 0.099216),
        (-0.003882, -0.048116, 1.051998),
    ),
    "deuteranopia": (
        (0.367322, 0.860646, -0.227968),
        (0.280085, 0.672501, 0.047413),
        (-0.011820, 0.042940, 0.968881),
    ),
    "tritanopia": (
        (1.255528, -0.076749, -0.178779),
        (-0.078411, 0.930809, 0.147602),
        (0.004733, 0.691367, 0.303900),
    ),
}
RGB_TO_XYZ = ((0.4124, 0.3576, 0.1805), (0.2126, 0.7152, 0.0722), (0.0193, 0.1192, 0.9505))
WHITE = (0.9505, 1.0, 1.089)

Vector = tuple[float, ...]


def times(matrix: Any, vector: Vector) -> Vector:
    return tuple(sum(a * b for a, b in zip(line, vector, strict=True)) for line in matrix)


def linear_rgb(style: str) -> Vector:
    colour = Style.parse(style).color
    assert colour is not None
    channels = (c / 255 for c in colour.get_truecolor())
    return tuple(c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)


def lab(rgb: Vector) -> Vector:
    x, y, z = (
        t ** (1 / 3) if t > 0.008856 else 7.787 * t + 16 / 116
        for t in (max(c, 0.0) / w for c, w in zip(times(RGB_TO_XYZ, rgb), WHITE, strict=True))
    )
    return 116 * y - 16, 500 * (x - y), 200 * (y - z)


def distance(a: str, b: str, blindness: str) -> float:
    """ΔE*ab of two styles' colours as seen with a blindness; 2.3 is just noticeable."""
    seen = [lab(times(BLINDNESS[blindness], linear_rgb(style))) for style in (a, b)]
    return math.dist(*seen)


@pytest.mark.parametrize("blindness", BLINDNESS)
def test_colours_that_mean_opposites_stay_apart_for_every_eye(blindness: str) -> None:
    p = COLOURBLIND
    assert distance(p.falls, p.rises, blindness) > 40
    for a, b in itertools.combinations((p.ok, p.warn, p.fail), 2):
        assert distance(a, b, blindness) > 15


def test_colours_are_read_on_dark() -> None:
    """Contrast of 4.5 to 1 and more, as WCAG asks of text, against the panels of a dark theme."""
    red, green, blue = linear_rgb("#1e1e1e")
    ground = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    for style in (COLOURBLIND.falls, COLOURBLIND.rises, COLOURBLIND.ok, COLOURBLIND.info, COLOURBLIND.warn):
        red, green, blue = linear_rgb(style)
        assert (0.2126 * red + 0.7152 * green + 0.0722 * blue + 0.05) / (ground + 0.05) > 4.5, style


def test_the_measure_knows_that_red_and_green_are_confused() -> None:
    red, green = "#d7301f", "#78902a"
    assert distance(red, green, "none") > 60
    assert distance(red, green, "deuteranopia") < 15


def test_the_default_does_not_tell_falls_from_rises_by_red_and_green() -> None:
    assert not {"red", "green"} & {*DEFAULT.falls.split(), *DEFAULT.rises.split()}


def test_mono_has_no_colour_at_all() -> None:
    for field in dataclasses.fields(Palette):
        style = Style.parse(getattr(MONO, field.name))
        assert style.color is None, field.name
        assert style.bgcolor is None, field.name


@pytest.mark.parametrize("palette", [DEFAULT, COLOURBLIND, MONO])
def test_styles_combine_with_selected_and_muted(palette: Palette) -> None:
    for field in dataclasses.fields(Palette):
        Style.parse(f"{getattr(palette, field.name)} {palette.selected} {palette.muted}")


def test_statuses_and_signs_have_their_styles() -> None:
    assert DEFAULT.status("crash") == DEFAULT.fail
    assert DEFAULT.status("skip") == DEFAULT.muted
    assert [DEFAULT.sign(x) for x in (-1e-300, 1.0)] == [DEFAULT.falls, DEFAULT.rises]
    assert [DEFAULT.sign(x) for x in (0.0, None, float("nan"))] == [DEFAULT.zero] * 3
