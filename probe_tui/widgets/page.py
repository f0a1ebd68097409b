"""Page: text that is wrapped for the width it gets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

from rich.text import Text
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.geometry import Size
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

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        """One row a line."""
        del container, viewport
        return len(self._lines(max(width, 1)))

    def render(self) -> Text:
        """The lines for the present width."""
        return Text("\n").join(self._lines(max(self.content_size.width, 1)))


class PageScroll(VerticalScroll):
    """What a page that is higher than the screen scrolls in: arrows, j k, page and home keys."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("j", "scroll_down", "a line down", show=False),
        Binding("k", "scroll_up", "a line up", show=False),
        Binding("space", "page_down", "a page down", show=False),
    ]
