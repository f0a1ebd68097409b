"""The main screen: folds the stream, shows it, and sends the engine its commands."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar

from rich.text import Text
from textual.app import App, ComposeResult, SystemCommand
from textual.binding import BindingType
from textual.containers import Container
from textual.screen import Screen
from textual.widgets import Footer, Input, TabbedContent, TabPane

from probe_engine.control import Break, Continue, Pause, Step
from probe_engine.errors import ProbeError
from probe_engine.spec import Resolved
from probe_tui.clipboard import copy, headless_command
from probe_tui.export import export
from probe_tui.keys import KEYS
from probe_tui.palettes import THEMES, palette_of
from probe_tui.renderables.palette import Palette
from probe_tui.screens.explain import ExplainScreen
from probe_tui.screens.help import HelpScreen
from probe_tui.screens.leave import Choice, LeaveScreen
from probe_tui.screens.options import OptionsScreen
from probe_tui.session import Session
from probe_tui.state import ScreenState, fold
from probe_tui.widgets.checks import ChecksPanel
from probe_tui.widgets.entropy import EntropyPanel
from probe_tui.widgets.header import Header
from probe_tui.widgets.influence import InfluencePanel
from probe_tui.widgets.log import LogPanel
from probe_tui.widgets.panel import Panel
from probe_tui.widgets.realized import RealizedPanel
from probe_tui.widgets.sidebar import Sidebar
from probe_tui.widgets.units import UnitsPanel

REFRESH_SECONDS = 0.25
"""A repaint costs some 20 ms of a core: at most 4 a second while the engine wants both."""

BREAKPOINTS = ("never", "fail", "warn")


class ProbeApp(App[int]):
    """Stages on the left, what they found on the right.

    Args:
        session: where events come from and commands go to.
    """

    CSS_PATH = "app.tcss"
    TITLE = "probe-tui"
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (100, "-wide")]
    BINDINGS: ClassVar[list[BindingType]] = [key.binding for key in KEYS]

    def __init__(self, session: Session) -> None:
        super().__init__()
        self.session = session
        self.state = ScreenState()
        self.exit_words = ""
        self._break_on = 0
        self._stepping = True
        self._folded_at = time.monotonic()
        for theme in THEMES:
            self.register_theme(theme)
        self.theme = "probe-mono" if os.environ.get("NO_COLOR") else THEMES[0].name

    @property
    def palette(self) -> Palette:
        """The styles of the current theme."""
        return palette_of(self.theme)

    def compose(self) -> ComposeResult:
        """Header, sidebar, tabs, footer."""
        yield Header()
        with Container(id="body"):
            yield Sidebar()
            with TabbedContent(initial="checks"):
                for name, panel in (
                    ("checks", ChecksPanel()),
                    ("units", UnitsPanel()),
                    ("influence", InfluencePanel()),
                    ("entropy", EntropyPanel()),
                    ("realized", RealizedPanel()),
                    ("log", LogPanel()),
                ):
                    with TabPane(name.capitalize(), id=name):
                        yield panel
        yield Input(placeholder="filter; escape clears", id="filter", classes="hidden")
        yield Footer()

    async def on_mount(self) -> None:
        """Starts the engine, if this session has one, and looks for its events."""
        self.query_one(LogPanel).follow(self.session.run / "engine.log")
        self.set_interval(REFRESH_SECONDS, self.look)
        self.call_after_refresh(self._start)

    async def _start(self) -> None:
        await self.session.start()
        self.look()

    # What is shown

    def look(self) -> None:
        """Folds what came since the last look and shows it."""
        batch = self.session.poll()
        if batch.restart:
            self.state = ScreenState()
        for event in batch.events:
            self.state = fold(self.state, event)
        if batch.events or batch.restart:
            self._folded_at = time.monotonic()
            self.show()
        else:
            self._show_clock()

    def show(self) -> None:
        """Draws everything that is visible."""
        self._show_clock()
        tabs = self.query_one(TabbedContent)
        for panel in self.query(Panel):
            pane = panel.parent
            if isinstance(pane, TabPane) and pane.id:
                word = panel.attention(self.state)
                title = f"{pane.id.capitalize()} {word}".rstrip()
                tab = tabs.get_tab(pane.id)
                if tab.label_text != title:
                    tab.label = Text(title)
        self.current_panel.show(self.state)

    @property
    def current_panel(self) -> Panel:
        """The visible tab."""
        active = self.query_one(TabbedContent).active
        return self.query_one(f"#{active}", TabPane).query_one(Panel)

    def on_tabbed_content_tab_activated(self, event: TabbedContent.TabActivated) -> None:
        """A tab is drawn when it comes to sight."""
        event.stop()
        self.current_panel.show(self.state)

    def on_resize(self) -> None:
        """Draws again at the new size, once the layout has settled."""
        self.call_after_refresh(self.show)

    def _show_clock(self) -> None:
        ended = self.state.ended is not None or not self.session.alive
        now = self.state.time + (0.0 if ended else self.session.clock() - self._folded_at)
        waits = self.state.paused is not None
        badge = self.session.badge + ("" if ended else " ‖" if waits else "")
        self.query_one(Header).show(self.state, badge, now)
        self.query_one(Sidebar).show(self.state, self.state.time if waits else now, self.palette)

    # Commands to the engine

    def action_next_stage(self) -> None:
        """Runs the next stage."""
        self._stepping = True
        self._send(Step())

    def action_run_all(self) -> None:
        """Runs to the end."""
        self._stepping = False
        self._send(Continue())

    def action_pause(self) -> None:
        """Pauses, or goes on as before."""
        if self.state.paused is None:
            self._send(Pause())
        else:
            self._send(Step() if self._stepping else Continue())

    def action_breakpoint(self) -> None:
        """Next breakpoint: never, fail, warn."""
        self._break_on = (self._break_on + 1) % len(BREAKPOINTS)
        on = BREAKPOINTS[self._break_on]
        self._send(Break(on=on))  # type: ignore[arg-type]
        self.notify({"never": "no breakpoint", "fail": "stops at the first fail",
                     "warn": "stops at the first warn or fail"}[on])  # fmt: skip

    async def action_stop(self) -> None:
        """Stops the engine; the results stay."""
        if not self.session.controls:
            self.notify(self.session.no_control, severity="warning")
        elif self.session.alive and self.state.ended is None:
            self.notify("stopping; what was found stays")
            await self.session.stop()

    def action_rerun(self) -> None:
        """Asks for options and runs again."""
        if not self.session.controls:
            self.notify(self.session.no_control, severity="warning")
            return
        self.push_screen(OptionsScreen(self.session.resolved), self._rerun)

    async def _rerun(self, resolved: Resolved | None) -> None:
        if resolved is None:
            return
        await self.session.rerun(resolved)
        self.query_one(LogPanel).follow(self.session.run / "engine.log")
        self._stepping = True
        self.state = ScreenState()
        self.show()

    def _send(self, command: Step | Continue | Pause | Break) -> None:
        try:
            self.session.send(command)
        except ProbeError as error:
            self.notify(f"{error.message} {error.remedy}", severity="warning")

    # Looking and taking

    def action_tab(self, name: str) -> None:
        """Shows a tab and puts the focus in it."""
        self.query_one(TabbedContent).active = name
        focusable = [w for w in self.query_one(f"#{name}", TabPane).query("*") if w.can_focus]
        if focusable:
            focusable[0].focus()

    def action_filter(self) -> None:
        """Opens the filter line, for panels that can filter."""
        if not hasattr(self.current_panel, "filter"):
            self.notify("this tab has nothing to filter", severity="warning")
            return
        entry = self.query_one("#filter", Input)
        entry.remove_class("hidden")
        entry.focus()

    def on_input_changed(self, event: Input.Changed) -> None:
        """Filters as one types."""
        if event.input.id == "filter":
            self._filter(event.value)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Back to the list, filtered."""
        if event.input.id == "filter":
            self._close_filter()

    def key_escape(self) -> None:
        """Clears the filter."""
        entry = self.query_one("#filter", Input)
        if not entry.has_class("hidden") or entry.value:
            entry.value = ""
            self._close_filter()

    def _filter(self, text: str) -> None:
        chosen = getattr(self.current_panel, "filter", None)
        if chosen is not None:
            chosen(text)

    def _close_filter(self) -> None:
        self.query_one("#filter", Input).add_class("hidden")
        self.action_tab(self.query_one(TabbedContent).active)

    def action_copy(self) -> None:
        """Copies what is selected."""
        self._copy(self.current_panel.copy_text())

    def action_command(self) -> None:
        """Copies the command that gives the number under the cursor."""
        self._copy(headless_command(self.state.report, self.current_panel.json_path()))

    def _copy(self, text: str) -> None:
        if not text:
            self.notify("nothing to copy here", severity="warning")
            return
        try:
            path = copy(self, text, self.session.run)
        except OSError as error:
            self.notify(f"copied; no file beside it: {error.strerror}", severity="warning")
            return
        self.notify(f"copied, and written to {path}")

    def action_export(self) -> None:
        """Writes report.json, units.csv, screen.svg and report.html."""
        try:
            written = export(self.state, self.session.run / "export", self.export_screenshot())
        except ProbeError as error:
            self.notify(f"{error.message} {error.remedy}", severity="error")
            return
        self.notify(f"{', '.join(p.name for p in written)} in {written[0].parent}")

    def action_explain(self) -> None:
        """Opens the page of the selected finding."""
        panel = self.query_one(ChecksPanel)
        if self.current_panel is panel and panel.selected is not None:
            self.push_screen(ExplainScreen(panel.selected.code))

    def action_next_theme(self) -> None:
        """Goes through the themes."""
        names = [theme.name for theme in THEMES]
        self.theme = names[(names.index(self.theme) + 1) % len(names)] if self.theme in names else names[0]
        self.notify(f"theme {self.theme}")
        self.query_one(Sidebar).refresh()
        self.show()

    def action_help(self) -> None:
        """Lists the keys."""
        panel = self.current_panel
        own = [(type(w).__name__, w.BINDINGS) for w in (panel, *panel.query("*")) if type(w).BINDINGS]
        seen = {name: bindings for name, bindings in own}
        self.push_screen(HelpScreen(list(seen.items())))

    def get_system_commands(self, screen: Screen[object]) -> Iterable[SystemCommand]:
        """The palette holds every key's action."""
        yield from super().get_system_commands(screen)
        for key in KEYS:
            action = key.action
            yield SystemCommand(
                f"{key.label}: {key.help}",
                f"key {key.display or key.key}",
                lambda a=action: self.call_later(self.run_action, a),
            )

    # Leaving

    def action_leave(self) -> None:
        """Leaves; asks first where an engine still works."""
        if self.session.owns_engine and self.session.alive and self.state.ended is None:
            self.push_screen(LeaveScreen(str(self.session.run)), self._leave)
        else:
            self.call_later(self._leave, "stop")

    async def action_quit(self) -> None:
        """The palette's quit is this one."""
        self.action_leave()

    async def _leave(self, choice: Choice | None) -> None:
        if choice == "leave":
            self.session.leave_running()
            self.exit_words = f"still running: probe-tui --attach {self.session.run}"
        elif choice == "stop":
            await self.session.stop()
        else:
            return
        self.exit(self.state.report.run.exit_code if self.state.ended is not None else 130)


def in_terminal() -> bool:
    """Whether there is a terminal to draw on: Textual reads stdin and draws on stdout or stderr."""
    if os.environ.get("CI") or os.environ.get("TERM", "") in ("", "dumb"):
        return False
    try:
        return all(os.isatty(descriptor) for descriptor in (0, 1, 2))
    except OSError:
        return False


def run_folder_of(path: str) -> Path:
    """The folder of a recorded run.

    Raises:
        ProbeError: there is none.
    """
    folder = Path(path)
    if not (folder / "events.jsonl").is_file():
        raise ProbeError(
            f"{path}: expected a run folder with events.jsonl, found none",
            "Give the folder that --out named, or the one that the screen showed.",
        )
    return folder
