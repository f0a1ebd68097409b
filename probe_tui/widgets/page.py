"""Page: text that is wrapped for the width it gets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar, Self

from rich.text import Text
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.geometry import Region, Size
from textual.widget import Widget


class Page(Widget):
    """Lines for any width, as high as they come.

    It stands in the first frame. A Static that is filled once its width is known comes three layouts
    later: a tenth of a second after the key.

    Args:
        lines: the text at a width.
    """

    DEFAULT_CSS = "Page { height: auto; }"

    def __init__(self, lines: Callable[[int], Sequence[Text]], *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._lines = lines
        self._wrapped: tuple[int, Sequence[Text]] | None = None
        """At the width asked for last: each layout asks for the height, and then the lines are drawn."""

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        """One row a line."""
        del container, viewport
        return len(self._at(max(width, 1)))

    def render(self) -> Text:
        """The lines for the present width."""
        return Text("\n").join(self._at(max(self.content_size.width, 1)))

    def refresh(
        self, *regions: Region, repaint: bool = True, layout: bool = False, recompose: bool = False
    ) -> Self:
        """The lines are asked for anew."""
        self._wrapped = None
        return super().refresh(*regions, repaint=repaint, layout=layout, recompose=recompose)

    def _at(self, width: int) -> Sequence[Text]:
        if self._wrapped is None or self._wrapped[0] != width:
            self._wrapped = width, self._lines(width)
        return self._wrapped[1]


class PageScroll(VerticalScroll):
    """What a page that is higher than the screen scrolls in: arrows, j k, page and home keys."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("j", "scroll_down", "a line down", show=False),
        Binding("k", "scroll_up", "a line up", show=False),
        Binding("space", "page_down", "a page down", show=False),
    ]
