"""The left column: stages, and the numbers that one came for. Two lines on top where it is narrow."""

from __future__ import annotations

from rich.text import Text
from textual.widget import Widget

from probe_tui.renderables.cells import row
from probe_tui.renderables.numbers import number
from probe_tui.renderables.palette import Palette
from probe_tui.renderables.stages import stage_rows
from probe_tui.state import ScreenState, StageState


class Sidebar(Widget):
    """Stages with their progress; δH₁, ΔĤ and the verdict as soon as they exist."""

    def __init__(self) -> None:
        super().__init__()
        self.border_title = "Stages"
        self._lines: list[Text] = []

    def show(self, state: ScreenState, now: float, palette: Palette) -> None:
        """Draws the state as it is `now`, seconds since the run began."""
        width, height = self.content_size
        lines = narrow(state, width, palette) if height <= 2 else wide(state, width, now, palette)
        if lines != self._lines:
            self._lines = lines
            self.refresh()

    def render(self) -> Text:
        """The lines of the last `show`."""
        return Text("\n").join(self._lines)


def wide(state: ScreenState, width: int, now: float, palette: Palette) -> list[Text]:
    """A row a stage, then the headline numbers."""
    paused = state.paused
    lines = stage_rows(
        state.stages, width=width, palette=palette, now=now, paused=None if paused is None else paused.stage
    )
    if paused is not None:
        lines += [Text(), row(width, [(f"‖ {waiting(state)}", palette.warn)])]
    return [*lines, Text(), *(row(width, [part]) for part in headline(state, palette))]


def narrow(state: ScreenState, width: int, palette: Palette) -> list[Text]:
    """Two lines: the stages as glyphs with the running one spelt out; the headline numbers."""
    first = [] if state.paused is None else [(f"‖ {waiting(state)}  ", palette.warn)]
    for stage in state.stages:
        style = palette.accent if stage.status == "running" else palette.muted
        first.append((f"{GLYPHS[stage.status]} {stage.name}{_share(stage)}  ", style))
    second = [(f"{text}  ", style) for text, style in headline(state, palette)]
    return [row(width, first), row(width, second)]


def headline(state: ScreenState, palette: Palette) -> list[tuple[str, str]]:
    """δH₁, ΔĤ and the verdict's word, each with its style."""
    parts = []
    estimate, verdict = state.report.estimates.u_statistic, state.report.verdict
    if estimate is not None:
        value = f"δH₁ {number(estimate.delta_h1)} ± {number(estimate.se_jackknife)}"
        parts.append((value, palette.sign(estimate.delta_h1)))
    measured = next((r for r in state.report.realized if r.estimator == "matched"), None)
    if measured is not None:
        value = f"ΔĤ  {number(measured.delta_h)} ± {number(measured.se)}"
        parts.append((value, palette.sign(measured.delta_h)))
    if verdict is not None:
        style = {"agree": palette.ok, "disagree": palette.fail, "unreliable": palette.fail}
        parts.append((verdict.status, style.get(verdict.status, palette.warn)))
    return parts


def waiting(state: ScreenState) -> str:
    """Why the engine waits, and what makes it go on."""
    paused = state.paused
    if paused is None:
        return ""
    if paused.stage:
        return f"n runs {paused.stage}"
    return f"{paused.reason}: p goes on"


GLYPHS = {"done": "✓", "running": "▶", "waiting": "·", "stopped": "✗"}


def _share(stage: StageState) -> str:
    return f" {stage.done / stage.total:.0%}" if stage.status == "running" and stage.total else ""
