"""The stages of a run: what is done, what is at work and for how long yet."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.cells import cell_len
from rich.text import Text

from probe_tui.plain import MARKS
from probe_tui.renderables.cells import Cell, fill, one_line, row
from probe_tui.renderables.numbers import count, duration, number
from probe_tui.renderables.palette import Palette
from probe_tui.state import StageState

GLYPHS = {"done": "✓", "running": "▶", "waiting": "·", "stopped": "✗", "paused": "‖"}
SHORTEST_BAR, LONGEST_BAR = 3, 40


def stage_rows(
    stages: Sequence[StageState], *, width: int, palette: Palette, now: float, paused: str | None = None
) -> list[Text]:
    """A row a stage: glyph, name, the glyph of its worst finding, and how far it is.

    Args:
        now: seconds since the run began, the clock of `StageState.began`.
        paused: the stage that the engine waits to begin; empty where it waits in the middle of the
            running one; None where it does not wait.
    """
    names = max((cell_len(one_line(s.name)) for s in stages), default=0)
    rows = []
    for stage in stages:
        waits = paused is not None and (paused == stage.name or (not paused and stage.status == "running"))
        status = "paused" if waits else stage.status
        style = {
            "done": palette.ok,
            "running": palette.accent,
            "stopped": palette.fail,
            "paused": palette.warn,
        }.get(status, palette.muted)
        bad = stage.worst if stage.worst in ("warn", "fail", "crash") else ""
        head: list[Cell] = [
            (f"{GLYPHS[status]} ", style),
            (fill(stage.name.capitalize(), names), style if status == "running" else ""),
            (f" {MARKS[bad]} " if bad else "   ", palette.status(bad)),
        ]
        room = width - names - 5
        rows.append(row(width, [*head, *_tail(stage, status, room, now, palette)]))
    return rows


def _tail(stage: StageState, status: str, room: int, now: float, palette: Palette) -> list[Cell]:
    elapsed = max(stage.seconds, now - stage.began) if stage.status == "running" else stage.seconds
    if stage.status == "running" and stage.total > 0:
        return _progress(stage, status, room, elapsed, palette)
    took = duration(elapsed)
    texts = {
        "done": (took,),
        "running": (f"{took} so far", took),
        "stopped": (f"stopped after {took}", "stopped"),
        "waiting": ("",),
        "paused": ("paused",),
    }[status]
    text = next((t for t in texts if len(t) <= room), "")
    return [(text.rjust(room) if status == "done" else text, palette.muted)]


def _progress(stage: StageState, status: str, room: int, elapsed: float, palette: Palette) -> list[Cell]:
    """A bar, with as many numbers after it as there is room for."""
    fraction = min(max(stage.done / stage.total, 0.0), 1.0)
    percent = f" {fraction:4.0%}"
    if status == "paused":
        texts = [f"{percent} paused after {duration(elapsed)}", f"{percent} paused", " paused", ""]
    else:
        left = "" if stage.left is None else f" {duration(stage.left)} left"
        texts = [f"{percent}{_rate(stage)}{left}", f"{percent}{left}", percent, ""]
    text = next((t for t in texts if room - cell_len(t) >= SHORTEST_BAR), "")
    length = min(max(room - cell_len(text), 0), LONGEST_BAR)
    halves = round(2 * length * fraction)
    full, half = "━" * (halves // 2), "╸" * (halves % 2)
    return [
        (full + half, palette.accent),
        ("─" * (length - len(full) - len(half)), palette.muted),
        (text, ""),
    ]


def _rate(stage: StageState) -> str:
    rate = stage.rate
    if rate is None or not math.isfinite(rate):
        return ""
    return f" {number(rate, 2) if rate < 10 else count(round(rate))} {one_line(stage.unit)}/s"
