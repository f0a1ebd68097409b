"""PanelTabs: a row of titles, and the panel of one of them."""

from __future__ import annotations

from collections.abc import Iterable

from rich.text import Text
from textual.app import ComposeResult
from textual.containers import Container, Vertical
from textual.widgets import Tab, Tabs

from probe_tui.state import ScreenState
from probe_tui.widgets.panel import Panel


class PanelTabs(Vertical):
    """One panel in sight. The others keep their size beside it, so that one is drawn before it comes to
    sight, and a key is answered by one repaint.

    Textual's own TabbedContent takes them out of the layout: a panel gets its size after it is seen, and
    its content after that.

    Args:
        panels: by their names, in the order of their tabs; the first one begins.
    """

    DEFAULT_CSS = """
    PanelTabs { width: 1fr; height: 1fr; }
    PanelTabs > Container { height: 1fr; }
    PanelTabs > Container > Panel { position: absolute; width: 100%; height: 100%; }
    """

    def __init__(self, panels: Iterable[tuple[str, Panel]]) -> None:
        super().__init__()
        self._panels = dict(panels)
        self._state = ScreenState()
        self.active = next(iter(self._panels))
        for name, panel in self._panels.items():
            panel.id = name
            panel.put_aside(name != self.active)
            panel.display = name == self.active

    def compose(self) -> ComposeResult:
        """The titles; below them all panels, in one place."""
        yield Tabs(*(Tab(name.capitalize(), id=_tab(name)) for name in self._panels))
        with Container():
            yield from self._panels.values()

    @property
    def panel(self) -> Panel:
        """The one in sight."""
        return self._panels[self.active]

    def show(self, state: ScreenState) -> None:
        """Draws the panel in sight, and what asks for attention in the titles."""
        self._state = state
        for name, panel in self._panels.items():
            title = f"{name.capitalize()} {panel.attention(state)}".rstrip()
            tab = self.query_one(f"#{_tab(name)}", Tab)
            if tab.label_text != title:
                tab.label = Text(title)
        self.panel.show(state)

    def switch(self, name: str) -> None:
        """Brings a panel to sight."""
        if name == self.active:
            return
        self.panel.put_aside(True)
        self.active = name
        self.panel.put_aside(False)
        self.panel.display = True
        self.query_one(Tabs).active = _tab(name)
        self.panel.show(self._state)

    def lay_out(self) -> None:
        """Gives the panels aside their size. The first paint does not wait for it."""
        for panel in self._panels.values():
            panel.display = True

    def on_tabs_tab_activated(self, event: Tabs.TabActivated) -> None:
        """A click on a title. What a key did is said, too, and may be old news by now."""
        event.stop()
        if event.tabs.active == event.tab.id:
            self.switch(event.tab.id.removeprefix(_tab("")))


def _tab(name: str) -> str:
    """The id of a panel's title."""
    return f"tab-{name}"
