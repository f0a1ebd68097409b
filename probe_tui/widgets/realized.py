"""Realized: is the prediction borne out by a measurement, and may one trust either?"""

from __future__ import annotations

from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.events import Click

from probe_engine.report import Report
from probe_tui.renderables.verdict import SAID
from probe_tui.state import ScreenState
from probe_tui.widgets.number_panel import Line, NumberPanel
from probe_tui.widgets.realized_lines import SCALES, TAKEN, realized_lines


class RealizedPanel(NumberPanel):
    """The verdict, what speaks against it, and everything that it rests on."""

    stage = "realize"
    root = ".realized"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("left", "scale(-1)", "what if the step were smaller", show=False),
        Binding("right", "scale(1)", "what if the step were larger", show=False),
    ]

    def __init__(self) -> None:
        super().__init__()
        self.scale = TAKEN
        """Which of SCALES the what-if is about."""

    def begin(self) -> None:
        """The what-if is about the step that is taken."""
        self.scale = TAKEN

    def lines(self, report: Report, width: int) -> list[Line]:
        """What was measured."""
        return realized_lines(report, scale=self.scale, width=width, palette=self.palette)

    def attention(self, state: ScreenState) -> str:
        """The glyph of a verdict that is no plain yes."""
        verdict = state.report.verdict
        return "" if verdict is None or verdict.status == "agree" else SAID[verdict.status][0]

    def on_click(self, event: Click) -> None:
        """A click on a scale of the what-if chooses it."""
        if "scale" in event.style.meta:
            self._choose(event.style.meta["scale"])

    def action_scale(self, by: int) -> None:
        """The what-if at the next smaller or larger step."""
        self._choose(self.scale + by)

    def _choose(self, scale: int) -> None:
        self.scale = min(max(scale, 0), len(SCALES) - 1)
        self.redraw()
