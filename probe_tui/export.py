"""Exports what the screen shows: the report for programs, a table, a picture, and a page to send around."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Sequence
from pathlib import Path

from probe_engine.errors import ProbeError
from probe_engine.report import UnitRow, encode
from probe_tui.state import ScreenState

UNIT_COLUMNS = (
    "id",
    "role",
    "G",
    "tokens",
    "reward_mean",
    "reward_std",
    "x_norm",
    "y_norm",
    "py_norm",
    "x_dot_py",
    "s",
    "t",
    "r",
    "contribution_s",
    "contribution_r",
    "x_norm_rb",
    "x_dot_py_rb",
    "s_rb",
    "t_rb",
    "r_rb",
    "contribution_s_rb",
    "contribution_r_rb",
    "covariance",
    "discriminant",
    "prompt",
)
"""Fields of a unit that are one number or one text, named as in the report."""


def export(state: ScreenState, folder: Path, svg: str) -> list[Path]:
    """Writes report.json, units.csv, screen.svg and report.html, each whole or not at all.

    Args:
        svg: the screen as a picture.

    Returns:
        The files.

    Raises:
        ProbeError: the folder can't be written (RUN003).
    """
    # Here, not above: jinja2 would cost the first paint some 60 ms.
    from probe_tui.web.page import page

    contents = {
        "report.json": encode(state.report),
        "units.csv": _utf8(units_csv(state.report.units)),
        "screen.svg": _utf8(svg),
        "report.html": _utf8(page(state)),
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in contents.items():
            _replace(folder / name, data)
    except OSError as error:
        raise ProbeError(
            f"{folder}: nothing can be exported to this folder: {error.strerror or error}",
            "Make room there, or choose another folder.",
            code="RUN003",
        ) from error
    return [folder / name for name in contents]


def units_csv(units: Sequence[UnitRow]) -> str:
    """A row a unit; what is unknown is an empty cell.

    A spreadsheet runs text that begins like a formula, and prompts are anybody's text: those get an
    apostrophe in front. report.json has them as they are, under the same id.
    """
    table = io.StringIO()
    writer = csv.writer(table)
    writer.writerow(UNIT_COLUMNS)
    writer.writerows([_inert(getattr(unit, column)) for column in UNIT_COLUMNS] for unit in units)
    return table.getvalue()


def _inert(value: object) -> object:
    return (
        f"'{value}"
        if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r"))
        else value
    )


def _utf8(text: str) -> bytes:
    """A file name that is no Unicode gets question marks for what is none."""
    return text.encode("utf-8", "replace")


def _replace(path: Path, data: bytes) -> None:
    partial = path.with_name(f"{path.name}.partial")
    try:
        partial.write_bytes(data)
        os.replace(partial, path)
    except OSError:
        partial.unlink(missing_ok=True)
        raise
