"""The left column: stages, and the numbers that one came for. Two lines on top where it is narrow."""

from __future__ import annotations

from functools import partial
from itertools import chain

from rich.cells import cell_len
from rich.text import Text
from textual.widget import Widget

from probe_engine.events import Failed
from probe_tui.plain import MARKS
from probe_tui.renderables.cells import Cell, paragraph, row
from probe_tui.renderables.findings import attention
from probe_tui.renderables.numbers import number
from probe_tui.renderables.palette import Palette
from probe_tui.renderables.stages import GLYPHS, stage_rows
from probe_tui.state import ScreenState, StageState


class Sidebar(Widget):
    """Stages with their progress; δH₁, ΔĤ and the verdict as soon as they exist."""

    def __init__(self) -> None:
        super().__init__()
        self.border_title = "Stages"
        self._told: tuple[ScreenState, float, Palette] | None = None
        self._shown: list[Text] = []

    def show(self, state: ScreenState, now: float, palette: Palette) -> None:
        """Draws the state as it is `now`, seconds since the run began; repaints only what changes."""
        self._told = state, now, palette
        lines = self._lines()
        if lines != self._shown:
            self._shown = lines
            self.refresh()

    def render(self) -> Text:
        """The last `show`, at the present size."""
        return Text("\n").join(self._lines())

    def _lines(self) -> list[Text]:
        if self._told is None:
            return []
        state, now, palette = self._told
        width, height = self.content_size
        return narrow(state, width, palette) if height <= 2 else wide(state, width, now, palette)


def wide(state: ScreenState, width: int, now: float, palette: Palette) -> list[Text]:
    """A row a stage, then why nothing goes on, then the headline numbers."""
    paused = state.paused
    lines = stage_rows(
        state.stages, width=width, palette=palette, now=now, paused=None if paused is None else paused.stage
    )
    for text, style in still(state, palette):
        lines += [Text(), *paragraph(width, text, style)]
    return [*lines, Text(), *(row(width, [part]) for part in headline(state, palette))]


def narrow(state: ScreenState, width: int, palette: Palette) -> list[Text]:
    """Two lines: the stages; the headline numbers. Why nothing goes on comes first."""
    hints = [(f"{text}  ", style) for text, style in still(state, palette)]
    waits = hints if state.ended is None else []
    spellings = (partial(_named, gap=" "), partial(_named, gap=""), _brief)
    layouts = [
        [*waits, *chain.from_iterable(spell(stage, state, palette) for stage in state.stages)]
        for spell in spellings
    ]
    first = next((cells for cells in layouts if _length(cells) <= width), layouts[-1])
    second = [(f"{text}  ", style) for text, style in headline(state, palette)]
    return [row(width, _trimmed(cells)) for cells in (first, second if waits else [*hints, *second])]


def still(state: ScreenState, palette: Palette) -> list[Cell]:
    """Why the engine does not work, and what makes it go on; nothing where it works, or came through."""
    if isinstance(state.ended, Failed):
        return [(f"✗ {state.ended.message}", palette.fail)]
    if state.paused is None:
        return []
    if state.paused.stage:
        return [(f"‖ n runs {state.paused.stage}", palette.warn)]
    return [(f"‖ {state.paused.reason}: p goes on", palette.warn)]


def headline(state: ScreenState, palette: Palette) -> list[Cell]:
    """What forbids to trust the numbers; δH₁, ΔĤ and the verdict's word."""
    parts = []
    if failed := attention(state.report.findings).fail:
        parts.append((f"✗ {failed} failed: see Checks", palette.fail))
    best, verdict = state.report.estimates.headline, state.report.verdict
    own, u = best.adamw, best.u_statistic
    predicted = (own.delta_h1, own.se) if own is not None else (u.delta_h1, u.se_jackknife) if u else None
    if predicted is not None:
        parts.append((f"δH₁ {number(predicted[0])} ± {number(predicted[1])}", palette.sign(predicted[0])))
    if state.report.realized:
        measured = state.report.realized[0]
        value = f"ΔĤ  {number(measured.delta_h)} ± {number(measured.se)}"
        parts.append((value, palette.sign(measured.delta_h)))
    if verdict is not None:
        style = {"agree": palette.ok, "disagree": palette.fail, "unreliable": palette.fail}
        parts.append((verdict.status, style.get(verdict.status, palette.warn)))
    return parts


def _named(stage: StageState, state: ScreenState, palette: Palette, gap: str) -> list[Cell]:
    """`✓ load  `, or `✓load ` without the gap."""
    name = (f"{_glyph(stage, state)}{gap}{stage.name}", _style(stage, palette))
    return [name, *_tail(stage, palette), (f"{gap} ", "")]


def _brief(stage: StageState, state: ScreenState, palette: Palette) -> list[Cell]:
    """Only the stage at work has a name."""
    if stage.status in ("running", "stopped"):
        return [(" ", ""), *_named(stage, state, palette, " ")]
    return [(_glyph(stage, state), _style(stage, palette)), *_tail(stage, palette)]


def _glyph(stage: StageState, state: ScreenState) -> str:
    waits = stage.status == "running" and state.paused is not None
    return GLYPHS["paused" if waits else stage.status]


def _tail(stage: StageState, palette: Palette) -> list[Cell]:
    """How far it is, and the mark of what it found."""
    share = f" {stage.done / stage.total:.0%}" if stage.status == "running" and stage.total else ""
    serious = stage.worst in ("warn", "fail", "crash") and stage.status != "stopped"
    bad = MARKS[stage.worst] if serious else ""
    return [(share, palette.accent), (bad, palette.status(stage.worst))]


def _style(stage: StageState, palette: Palette) -> str:
    return {"running": palette.accent, "stopped": palette.fail}.get(stage.status, palette.muted)


def _length(cells: list[Cell]) -> int:
    return sum(cell_len(text) for text, _ in _trimmed(cells))


def _trimmed(cells: list[Cell]) -> list[Cell]:
    """Without the gap at the end."""
    return [*cells[:-1], (cells[-1][0].rstrip(), cells[-1][1])] if cells else []
