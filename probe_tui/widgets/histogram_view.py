"""HistogramView: one histogram, and a range of its bars chosen with the keyboard or the mouse."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from typing import ClassVar

from rich.text import Text
from textual.binding import Binding, BindingType
from textual.events import MouseDown, MouseMove, MouseUp
from textual.message import Message
from textual.widget import Widget

from probe_engine.report import Histogram
from probe_tui.renderables.histogram import GUTTER, ValueRange, bins_at, histogram, value_range
from probe_tui.renderables.palette import DEFAULT, Palette

Bins = tuple[int, int]
"""First and last."""


@dataclass(frozen=True)
class Drawing:
    """What a view is shown."""

    histogram: Histogram | None = None
    axis: tuple[float, float] | None = None
    """Lowest and highest value, shared with other views."""
    title: str = ""
    symbol: str = ""
    """Stands for the title where that has no room."""
    unit: str = ""
    """Of the values."""
    reason: str = ""
    """Said where there is nothing to draw."""
    log_counts: bool = False
    palette: Palette = DEFAULT


class HistogramView(Widget, can_focus=True):
    """Draws a histogram, and holds a range of values.

    The range is held as values, not as bins: edges move while a histogram grows, and the range stays
    where it was put.
    """

    DEFAULT_CSS = """
    HistogramView { height: 1fr; width: 1fr; }
    HistogramView:focus { background-tint: $foreground 5%; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("left", "move(-1)", "choose the bar to the left", show=False),
        Binding("right", "move(1)", "choose the bar to the right", show=False),
        Binding("shift+left", "extend(-1)", "extend the range to the left", show=False),
        Binding("shift+right", "extend(1)", "extend the range to the right", show=False),
    ]

    class RangeChanged(Message):
        """Somebody chose a range, or gave it up."""

        def __init__(self, view: HistogramView) -> None:
            super().__init__()
            self.view = view

    class TitleClicked(Message):
        """What `l` does, for the mouse."""

    def __init__(self, *, id: str) -> None:
        super().__init__(id=id)
        self.drawing = Drawing()
        self._anchor: float | None = None
        """A value in the bar where the range begins."""
        self._cursor = 0.0
        """A value in the bar where it ends."""
        self._dragging = False
        self._found: tuple[Drawing, int, dict[int, Bins]] | None = None
        """The bars of a drawing at a width: they are looked for when somebody wants one."""

    def show(self, drawing: Drawing) -> None:
        """Draws this; a range stays where it is."""
        if drawing != self.drawing:
            self.drawing = drawing
            self.refresh()

    @property
    def bins(self) -> Bins | None:
        """The bins of the chosen range."""
        if self._anchor is None or not self._bars:
            return None
        first, last = (self._bars[self._bar_of(end)] for end in sorted((self._anchor, self._cursor)))
        return first[0], last[1]

    @property
    def chosen(self) -> ValueRange | None:
        """The values of the chosen range."""
        bins, shown = self.bins, self.drawing.histogram
        return None if bins is None or shown is None else value_range(shown, bins)

    def clear(self) -> None:
        """Forgets the range; says nothing."""
        self._anchor = None
        self.refresh()

    def render(self) -> Text:
        """The histogram; a mark says which one of two has the keys."""
        d, bins = self.drawing, self.bins
        mark = "▸ " if self.has_focus else ""
        rows = histogram(
            d.histogram,
            width=self.size.width,
            height=self.size.height,
            title=f"{mark}{d.title}",
            symbol=f"{mark}{d.symbol}",
            unit=d.unit,
            palette=d.palette,
            axis=d.axis,
            selected=bins,
            log_counts=d.log_counts,
            empty_reason=d.reason,
        )
        return Text("\n").join(rows)

    def on_focus(self) -> None:
        """The mark appears."""
        self.refresh()

    def on_blur(self) -> None:
        """The mark goes."""
        self.refresh()

    def action_move(self, step: int) -> None:
        """Chooses the next bar; at first, the one beside zero."""
        if self._anchor is None:
            self._choose(self._bar_of(0.0) + min(step, 0))
        else:
            self._choose(self._bar_of(self._cursor) + step)

    def action_extend(self, step: int) -> None:
        """One bar more, or less."""
        if self._anchor is None:
            self.action_move(step)
        else:
            self._choose(self._bar_of(self._cursor) + step, anchor=self._anchor)

    def on_mouse_down(self, event: MouseDown) -> None:
        """Begins a range; left of the plot, gives it up."""
        bar = self._bar_at(event.x)
        if event.y == 0:
            self.post_message(self.TitleClicked())
        elif event.x < GUTTER or bar is None:
            self.clear()
            self.post_message(self.RangeChanged(self))
        else:
            self._dragging = True
            self.capture_mouse()
            self._choose(bar)

    def on_mouse_move(self, event: MouseMove) -> None:
        """Extends the range while the button is down."""
        bar = self._bar_at(event.x) if self._dragging else None
        if bar is not None and bar != self._bar_of(self._cursor):
            self._choose(bar, anchor=self._anchor)

    def on_mouse_up(self, event: MouseUp) -> None:
        """Ends the drag."""
        del event
        self._dragging = False
        self.release_mouse()

    def _choose(self, bar: int, anchor: float | None = None) -> None:
        """The range from `anchor` to this bar; from the bar itself without one."""
        shown = self.drawing.histogram
        if shown is None or not self._bars:
            return
        first, last = self._bars[min(max(bar, 0), len(self._bars) - 1)]
        # The middle: where the edges move a little, it is still in this bar.
        self._cursor = shown.edges[first] / 2 + shown.edges[last + 1] / 2
        self._anchor = self._cursor if anchor is None else anchor
        self.refresh()
        self.post_message(self.RangeChanged(self))

    @property
    def _columns(self) -> dict[int, Bins]:
        """The bar in each column that has one. Where it is narrow, several bins are one bar."""
        d, width = self.drawing, self.size.width
        if self._found is None or self._found[:2] != (d, width):
            bars = (
                {}
                if d.histogram is None
                else {x: bins_at(d.histogram, x, width, d.axis) for x in range(width)}
            )
            self._found = d, width, {x: bins for x, bins in bars.items() if bins is not None}
        return self._found[2]

    @property
    def _bars(self) -> list[Bins]:
        """From left to right."""
        return list(dict.fromkeys(self._columns.values()))

    def _bar_at(self, x: int) -> int | None:
        """The bar nearest to a column of the screen: the axis may reach farther than the bars."""
        if not self._columns:
            return None
        nearest = min(self._columns, key=lambda column: abs(column - x))
        return self._bars.index(self._columns[nearest])

    def _bar_of(self, value: float) -> int:
        """Which bar holds the value, or is the one nearest to it."""
        edges = [] if self.drawing.histogram is None else self.drawing.histogram.edges
        found = bisect_right([first for first, _ in self._bars], bisect_right(edges, value) - 1) - 1
        return min(max(found, 0), len(self._bars) - 1)
