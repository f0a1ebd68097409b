"""The main screen: folds the stream, shows it, and sends the engine its commands."""

from __future__ import annotations

import asyncio
import gc
import os
import shlex
import signal
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import ClassVar

from rich.text import Text
from textual.app import App, ComposeResult, SystemCommand
from textual.binding import BindingType
from textual.containers import Container
from textual.screen import Screen
from textual.widgets import Input, TabbedContent, TabPane

from probe_engine.errors import INTERRUPTED, ProbeError
from probe_engine.events import Failed
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
from probe_tui.session import ReplaySession, Session
from probe_tui.state import ScreenState, fold
from probe_tui.widgets.checks import ChecksPanel
from probe_tui.widgets.entropy import EntropyPanel
from probe_tui.widgets.header import Header
from probe_tui.widgets.influence import InfluencePanel
from probe_tui.widgets.key_line import KeyLine
from probe_tui.widgets.log import LogPanel
from probe_tui.widgets.panel import Panel
from probe_tui.widgets.realized import RealizedPanel
from probe_tui.widgets.sidebar import Sidebar
from probe_tui.widgets.units import UnitsPanel

REFRESH_SECONDS = 0.5
"""A list that grows is painted twice, its scroll bar after it, for some 30 ms of a core: at most 4 repaints
a second while the engine wants both."""

ANSWER_SECONDS = 0.15
"""After a command: an engine that waits reads it within 50 ms."""

BREAKPOINTS = (
    ("never", "no breakpoint"),
    ("fail", "stops at the first fail"),
    ("warn", "stops at the first warn or fail"),
)


class ProbeApp(App[int]):
    """Stages on the left, what they found on the right.

    Args:
        session: where events come from and commands go to.
        clock: seconds, monotonic.
    """

    CSS_PATH = "app.tcss"
    TITLE = "probe-tui"
    AUTO_FOCUS = "ChecksPanel OptionList"
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (100, "-wide")]  # noqa: RUF012 - Textual declares no ClassVar
    BINDINGS: ClassVar[list[BindingType]] = [key.binding for key in KEYS]

    def __init__(self, session: Session, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self.animation_level = "none"  # an animation repaints 60 times a second
        self.session = session
        self.state = ScreenState()
        self._clock = clock
        self._break_on = 0
        self._folded_at = clock()
        for theme in THEMES:
            self.register_theme(theme)
        self.theme = "probe-mono" if os.environ.get("NO_COLOR") else THEMES[0].name

    @property
    def palette(self) -> Palette:
        """The styles of the current theme."""
        return palette_of(self.theme)

    def compose(self) -> ComposeResult:
        """Header, sidebar, tabs, keys."""
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
        yield Input(placeholder="filter; escape clears", id="filter", classes="hidden", disabled=True)
        yield KeyLine()

    async def on_mount(self) -> None:
        """Starts the engine, if this session has one, and looks for its events."""
        # A plain `kill` is a way to leave; interactive.py minds the terminal that closes.
        asyncio.get_running_loop().add_signal_handler(
            signal.SIGTERM, lambda: self.run_worker(self._leave("stop"))
        )
        self.query_one(LogPanel).follow(self.session.run / "engine.log")
        # The command palette changes themes, too.
        self.theme_changed_signal.subscribe(self, lambda _: self.show())
        self.set_interval(REFRESH_SECONDS, self.look)
        self.call_after_refresh(self._start)

    async def _start(self) -> None:
        # What a program of this size is made of stays to its end: without this, looking through all of it
        # for garbage holds up a key by 60 ms now and then.
        gc.freeze()
        try:
            await self.session.start()
        except ProbeError as error:
            self._refused(error)
        self.look()

    # What is shown

    def look(self) -> None:
        """Folds what came since the last look and shows it."""
        if not self.is_running:  # the clock's last tick, while the screen is taken down
            return
        news = self.session.poll()
        if news.restart:
            self.state = ScreenState()
        for event in news.events:
            self.state = fold(self.state, event)
        if news.events or news.restart:
            self._folded_at = self._clock()
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
        """A tab is brought up to date when it has come to sight: before, it has no width to draw for."""
        event.stop()
        self.call_after_refresh(lambda: self.current_panel.show(self.state))

    def on_resize(self) -> None:
        """Draws again at the new size, once the layout has settled."""
        self.call_after_refresh(self.show)

    def _show_clock(self) -> None:
        state, now = self.state, self.state.time
        if state.paused is not None:
            now = state.paused.time
        elif state.ended is None and self.session.live and not self.session.ended:
            now += self._clock() - self._folded_at
        self.query_one(Header).show(state, self.session.badge, now)
        self.query_one(Sidebar).show(state, now, self.palette)

    # Commands to the engine

    def action_next_stage(self) -> None:
        """Runs the next stage."""
        self._command(self.session.next_stage)

    def action_run_all(self) -> None:
        """Runs to the end."""
        self._command(self.session.run_all)

    def action_pause(self) -> None:
        """Pauses, or goes on as before."""
        waits = self.state.paused is not None
        if (
            self._command(partial(self.session.toggle, waits=waits))
            and not waits
            and self.session.owns_engine
        ):
            self.notify("pauses after this micro-batch")

    def action_breakpoint(self) -> None:
        """Next breakpoint: never, fail, warn."""
        following = (self._break_on + 1) % len(BREAKPOINTS)
        status, words = BREAKPOINTS[following]
        if self._command(partial(self.session.break_on, status)):
            self._break_on = following
            self.notify(words)

    async def action_stop(self) -> None:
        """Stops the engine; the results stay."""
        if not self.session.owns_engine:
            self.notify(self.session.why_not, severity="warning")
        elif self.state.ended is None:
            self.notify("stopping; what was found stays")
            await self.session.stop()
            self.look()

    def action_rerun(self) -> None:
        """Asks for options and runs again."""
        try:
            resolved = self.session.resolved
        except ProbeError as error:
            self._refused(error)
            return
        self.push_screen(OptionsScreen(resolved), self._rerun)

    def _rerun(self, resolved: Resolved | None) -> None:
        if resolved is not None and self._command(partial(self.session.rerun, resolved)):
            self.query_one(LogPanel).follow(self.session.run / "engine.log")
            self.look()

    def _command(self, command: Callable[[], None]) -> bool:
        try:
            command()
        except ProbeError as error:
            self._refused(error)
            return False
        self.look()
        self.set_timer(ANSWER_SECONDS, self.look)
        return True

    def _refused(self, error: ProbeError) -> None:
        self.notify(f"{error.message}. {error.remedy}".rstrip(" ."), severity="warning", markup=False)

    # Replay

    def action_speed(self, factor: float) -> None:
        """Plays a recording faster or slower."""
        if isinstance(self.session, ReplaySession):
            self.session.faster(factor)
            self._show_clock()

    def action_seek(self, step: float) -> None:
        """Moves in a recording."""
        if isinstance(self.session, ReplaySession):
            self.session.seek(step)
            self.look()

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
        entry.disabled = False
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
        entry = self.query_one("#filter", Input)
        entry.add_class("hidden")
        entry.disabled = True
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
            self._refused(error)
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

    def action_help(self) -> None:
        """Lists the keys."""
        panel = self.current_panel
        ours = [type(w) for w in (panel, *panel.query("*")) if type(w).__module__.startswith("probe_tui")]
        own = [binding for kind in dict.fromkeys(ours) for binding in vars(kind).get("BINDINGS", ())]
        self.push_screen(HelpScreen([("This tab", own)] if own else []))

    def get_system_commands(self, screen: Screen[object]) -> Iterable[SystemCommand]:
        """The palette holds every key's action."""
        yield from super().get_system_commands(screen)
        for key in KEYS:
            run = partial(self.call_later, self.run_action, key.action)
            yield SystemCommand(f"{key.label}: {key.help}", f"key {key.display or key.key}", run)

    # Leaving

    def action_leave(self) -> None:
        """Leaves; asks first where an engine still works."""
        if self.session.owns_engine and self.state.ended is None:
            self.push_screen(LeaveScreen(str(self.session.run)), self._leave)
        else:
            self.run_worker(self._leave("stop"))

    async def action_quit(self) -> None:
        """The palette's quit is this one."""
        self.action_leave()

    async def _leave(self, choice: Choice | None) -> None:
        if choice == "leave":
            self.session.leave_running()
            self.exit(0, message=f"still running: probe-tui --attach {self.session.run}")
        elif choice == "stop":
            await self.session.stop()
            self.look()
            ended = self.state.ended
            self.exit(INTERRUPTED if ended is None else ended.run.exit_code, message=self._last_words())

    def _last_words(self) -> str:
        """What stays on the terminal: why the run stopped, if it did, and where it lies."""
        ended = self.state.ended
        why = f"stopped: {ended.message}\n" if isinstance(ended, Failed) else ""
        return (
            f"{why}run folder: {self.session.run}\n  probe-tui --replay {shlex.quote(str(self.session.run))}"
        )
