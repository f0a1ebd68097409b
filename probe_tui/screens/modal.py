"""Modal: a screen on top of another one, which stays in sight, dimmed."""

from __future__ import annotations

from functools import lru_cache
from typing import Self

from rich.console import RenderableType
from rich.segment import Segment
from rich.style import Style
from textual.color import Color
from textual.css.styles import RulesMap
from textual.geometry import Region, Size
from textual.renderables.background_screen import BackgroundScreen
from textual.screen import ModalScreen, Screen, ScreenResultType
from textual.strip import Strip
from textual.style import Style as TextualStyle
from textual.visual import RenderOptions, Visual


class Modal(ModalScreen[ScreenResultType]):
    """What every screen that opens on top of the main one is."""

    _dimmed: Dimmed | None = None

    # Textual draws any Visual; ModalScreen declares less.
    def render(self) -> RenderableType | Visual:  # type: ignore[override]
        """The screen below, dimmed."""
        below = super().render()
        if not isinstance(below, BackgroundScreen):
            return below
        if self._dimmed is None:
            self._dimmed = Dimmed(below.screen, below.color)
        return self._dimmed

    def refresh(
        self, *regions: Region, repaint: bool = True, layout: bool = False, recompose: bool = False
    ) -> Self:
        """Textual asks for it when the screen below has changed."""
        self._dimmed = None
        return super().refresh(*regions, repaint=repaint, layout=layout, recompose=recompose)


class Dimmed(Visual):
    """What Textual's BackgroundScreen shows, sooner: without Rich's console, with colours mixed once a style
    (a screen has a thousand segments, of a few dozen styles), and once: opening a screen asks thrice.
    """

    def __init__(self, screen: Screen[object], color: Color) -> None:
        self._screen = screen
        self._color = color
        self._drawn: tuple[Size, list[Strip]] | None = None

    def render_strips(
        self, width: int, height: int | None, style: TextualStyle, options: RenderOptions
    ) -> list[Strip]:
        """The rows of the screen below."""
        del width, style, options
        size = self._screen.size
        if self._drawn is None or self._drawn[0] != size:
            rows = self._screen._compositor.render_strips()
            self._drawn = (
                size,
                [
                    Strip(
                        [Segment(text, _dimmed(style, self._color)) for text, style, _ in row],
                        row.cell_length,
                    )
                    for row in rows
                ],
            )
        return self._drawn[1][:height]

    def get_optimal_width(self, rules: RulesMap, container_width: int) -> int:
        """All of it."""
        del rules
        return container_width

    def get_height(self, rules: RulesMap, width: int) -> int:
        """The screen's."""
        del rules, width
        return self._screen.size.height


@lru_cache(maxsize=1024)
def _dimmed(style: Style | None, color: Color) -> Style | None:
    (dimmed,) = BackgroundScreen.process_segments([Segment("", style)], color)
    return dimmed.style
