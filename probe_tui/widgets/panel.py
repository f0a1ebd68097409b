"""Panel: one tab of the main screen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, cast

from textual.widget import Widget

from probe_engine.events import Failed
from probe_tui.renderables.palette import Palette
from probe_tui.state import ScreenState

if TYPE_CHECKING:
    from probe_tui.app import ProbeApp


class Panel(Widget):
    """One tab. The app calls `show` with each new state while the tab is visible, at most 4 times a second.

    A panel never asks for repaints of its own while the engine works; it draws what it is shown.
    """

    DEFAULT_CSS = "Panel { height: 1fr; width: 1fr; }"
    words: ClassVar[Sequence[str]] = ()
    """What its symbols mean, for the help."""
    aside = False
    """Not in sight: laid out beside the screen."""

    def put_aside(self, aside: bool) -> None:
        """Out of sight, or back."""
        self.aside = aside
        self.styles.offset = ("100%", 0) if aside else (0, 0)

    def allow_focus(self) -> bool:
        """The keys go to what is seen."""
        return super().allow_focus() and not self.aside

    def allow_focus_children(self) -> bool:
        """The same for the widgets in it."""
        return super().allow_focus_children() and not self.aside

    def show(self, state: ScreenState) -> None:
        """Draws the state."""
        raise NotImplementedError

    def begin(self) -> None:
        """Another run begins: what was asked of the last one is no longer asked."""

    def attention(self, state: ScreenState) -> str:
        """A word for the tab's title, such as `2 ✗`; empty where nothing asks for attention."""
        del state
        return ""

    def json_path(self) -> str:
        """Where the report holds what is looked at, such as `.estimates.split.delta_h1`: for `c`."""
        return "."

    def copy_text(self) -> str:
        """What `y` copies; empty where there is nothing to copy."""
        return ""

    def empty_reason(self, state: ScreenState, stage: str) -> str:
        """Why there is nothing to show yet: no panel is empty without its reason."""
        if isinstance(state.ended, Failed):
            return (
                f"Nothing here: the run ended before {stage} had a result: {state.ended.message}. "
                "The tab Checks says why and what to do: press 1."
            )
        if state.ended is not None:
            return f"Nothing here: the run ended before {stage} had a result."
        if state.running is not None and state.paused is None:
            return f"Comes with the stage {stage}; {state.running.name} is at work."
        return f"Comes with the stage {stage}: press n to run the next stage, a to run all."

    @property
    def probe_app(self) -> ProbeApp:
        """The app, typed."""
        return cast("ProbeApp", self.app)

    @property
    def palette(self) -> Palette:
        """The styles of the current theme."""
        return self.probe_app.palette
