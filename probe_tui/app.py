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
from pathlib import Path
from typing import ClassVar, Literal

from textual.app import App, ComposeResult, SystemCommand
from textual.binding import BindingType
from textual.containers import Container
from textual.geometry import Size
from textual.screen import Screen
from textual.widgets import Input, Static

from probe_engine.errors import INTERRUPTED, ProbeError
from probe_engine.events import Failed
from probe_engine.spec import Resolved
from probe_tui.clipboard import copy, headless_command
from probe_tui.export import export
from probe_tui.keys import KEYS
from probe_tui.palettes import THEMES, palette_of
from probe_tui.renderables.cells import visible
from probe_tui.renderables.palette import Palette
from probe_tui.screens.explain import ExplainScreen
from probe_tui.screens.export import ExportScreen, export_folder
from probe_tui.screens.help import HelpScreen
from probe_tui.screens.leave import Choice, LeaveScreen, ways
from probe_tui.screens.options import OptionsScreen
from probe_tui.session import ReplaySession, Session, Status
from probe_tui.state import ScreenState, fold
from probe_tui.widgets.checks import ChecksPanel
from probe_tui.widgets.entropy import EntropyPanel
from probe_tui.widgets.header import Header
from probe_tui.widgets.influence import InfluencePanel
from probe_tui.widgets.key_line import KeyLine
from probe_tui.widgets.log import LogPanel
from probe_tui.widgets.panel import Panel
from probe_tui.widgets.panel_tabs import PanelTabs
from probe_tui.widgets.realized import RealizedPanel
from probe_tui.widgets.sidebar import Sidebar
from probe_tui.widgets.units import UnitsPanel

REFRESH_SECONDS = 0.5
"""A list that grows is painted twice, its scroll bar after it, for some 30 ms of a core: at most 4 repaints
a second while the engine wants both."""

TOAST_SECONDS = 4.0
"""Long enough to be read, for it covers what lies below it."""

ANSWER_SECONDS = 0.15
"""After a command: an engine that waits reads it within 50 ms."""

BREAKPOINTS: tuple[tuple[Status, str], ...] = (
    ("never", "no breakpoint"),
    ("fail", "waits at the first fail"),
    ("warn", "waits at the first warn or fail"),
)


LEAST = Size(60, 20)
"""Columns and rows below which it is said that there are too few."""


class ProbeApp(App[int]):
    """Stages on the left, what they found on the right.

    Args:
        session: where events come from and commands go to.
        clock: seconds, monotonic.
    """

    CSS_PATH = "app.tcss"
    TITLE = "probe-tui"
    AUTO_FOCUS = "ChecksPanel OptionList"
    HORIZONTAL_BREAKPOINTS = [  # noqa: RUF012 - Textual declares no ClassVar
        (0, "-tiny"),
        (LEAST.width, "-narrow"),
        (100, "-wide"),
    ]
    VERTICAL_BREAKPOINTS = [  # noqa: RUF012 - Textual declares no ClassVar
        (0, "-low"),
        (LEAST.height, "-high"),
    ]
    BINDINGS: ClassVar[list[BindingType]] = [key.binding for key in KEYS]

    def __init__(self, session: Session, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self.animation_level = "none"  # an animation repaints 60 times a second
        self.session = session
        self.state = ScreenState()
        self._clock = clock
        self._folded_at = clock()
        self._exported: Path | None = None
        """The folder that files were written to last."""
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
            yield PanelTabs(
                (
                    ("checks", ChecksPanel()),
                    ("units", UnitsPanel()),
                    ("influence", InfluencePanel()),
                    ("entropy", EntropyPanel()),
                    ("realized", RealizedPanel()),
                    ("log", LogPanel()),
                )
            )
        yield Static(f"too small: {LEAST.width}×{LEAST.height} at least", id="too-small")
        yield Input(placeholder="filter; escape clears", id="filter", classes="hidden", disabled=True)
        yield KeyLine(self.session.commands)

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
        self.query_one(PanelTabs).lay_out()

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
        self.query_one(PanelTabs).show(self.state)

    @property
    def current_panel(self) -> Panel:
        """The visible tab."""
        return self.query_one(PanelTabs).panel

    def on_resize(self) -> None:
        """Draws again at the new size, once the layout has settled."""
        self.call_after_refresh(self.show)

    def _show_clock(self) -> None:
        state, now = self.state, self.state.time
        if state.paused is not None:
            now = state.paused.time
        elif state.ended is None and self.session.live and not self.session.ended:
            now += self._clock() - self._folded_at
        badge = self.session.badge
        if self.session.breakpoint != "never" and state.ended is None:
            badge += f" · ◆ breaks on {self.session.breakpoint}"
        self.query_one(Header).show(state, badge, now)
        self.query_one(KeyLine).show(self.session.commands)
        self.query_one(Sidebar).show(state, now, self.palette)

    # Commands to the engine

    def action_next_stage(self) -> None:
        """Runs the next stage."""
        self._command("next_stage", self.session.next_stage)

    def action_run_all(self) -> None:
        """Runs to the end."""
        self._command("run_all", self.session.run_all)

    def action_pause(self) -> None:
        """Pauses, or goes on as before."""
        waits = self.state.paused is not None
        done = self._command("pause", partial(self.session.toggle, waits=waits))
        if done and not waits and self.session.live:
            self._tell("pauses after this micro-batch")

    def action_breakpoint(self) -> None:
        """Next breakpoint: never, fail, warn."""
        at = next(i for i, (status, _) in enumerate(BREAKPOINTS) if status == self.session.breakpoint)
        status, words = BREAKPOINTS[(at + 1) % len(BREAKPOINTS)]
        if self._command("breakpoint", partial(self.session.break_on, status)):
            self._tell(words)

    async def action_stop(self) -> None:
        """Stops the engine; the results stay."""
        if self._offered("stop"):
            self._tell("stopping; what was found stays")
            try:
                await self.session.interrupt()
            except ProbeError as error:
                self._refused(error)
            self.look()

    def action_rerun(self) -> None:
        """Asks for options and runs again."""
        if self._offered("rerun"):
            self.push_screen(OptionsScreen(self.session.resolved), self._rerun)

    def _rerun(self, resolved: Resolved | None) -> None:
        if resolved is not None and self._command("rerun", partial(self.session.rerun, resolved)):
            self.query_one(LogPanel).follow(self.session.run / "engine.log")
            for panel in self.query(Panel):
                panel.begin()
            self.look()

    def _command(self, action: str, command: Callable[[], None]) -> bool:
        if not self._offered(action):
            return False
        try:
            command()
        except ProbeError as error:
            self._refused(error)
            return False
        self.look()
        self.set_timer(ANSWER_SECONDS, self.look)
        return True

    def _offered(self, action: str) -> bool:
        """Does this do anything now? If not, says why."""
        offered = action in self.session.commands
        if not offered:
            self._tell(self.session.why_not, "warning")
        return offered

    def _refused(self, error: ProbeError) -> None:
        self._tell(f"{error.message}. {error.remedy}".rstrip(" ."), "warning")

    def _tell(self, words: str, severity: Literal["information", "warning"] = "information") -> None:
        """In the bottom line; where that is covered or too short, as a toast."""
        line = self.screen_stack[0].query_one(KeyLine)
        style = self.palette.warn if severity == "warning" else self.palette.accent
        covered = len(self.screen_stack) > 1 or isinstance(self.focused, Input)
        if covered or not line.say(words, style):
            self.notify(words, severity=severity, timeout=TOAST_SECONDS, markup=False)

    # Replay

    def action_speed(self, factor: float) -> None:
        """Plays a recording faster or slower."""
        if self._offered("speed") and isinstance(self.session, ReplaySession):
            self.session.faster(factor)
            self._show_clock()

    def action_seek(self, step: float) -> None:
        """Moves in a recording."""
        if self._offered("seek") and isinstance(self.session, ReplaySession):
            self.session.seek(step)
            self.look()

    # Looking and taking

    def action_tab(self, name: str) -> None:
        """Shows a tab and puts the focus in it."""
        tabs = self.query_one(PanelTabs)
        tabs.switch(name)
        takes_keys = next((w for w in (tabs.panel, *tabs.panel.query("*")) if w.can_focus), None)
        if takes_keys is not None:
            takes_keys.focus()

    def action_filter(self) -> None:
        """Opens the filter line, for panels that can filter."""
        if not hasattr(self.current_panel, "filter"):
            self._tell("this tab has nothing to filter", "warning")
            return
        entry = self.query_one("#filter", Input)
        entry.disabled = False
        entry.remove_class("hidden")
        self.screen.set_focus(entry)  # now: `focus` would let what is typed next go elsewhere

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """A `/` that somebody types into a line, or on top of this screen, is no filter."""
        if action == "filter":
            return len(self.screen_stack) == 1 and not isinstance(self.focused, Input)
        return super().check_action(action, parameters)

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
        self.action_tab(self.query_one(PanelTabs).active)

    def action_copy(self) -> None:
        """Copies what is selected."""
        self.take(self.current_panel.copy_text())

    def action_command(self) -> None:
        """Copies the command that gives the number under the cursor."""
        self.take(headless_command(self.state.report, self.current_panel.json_path()))

    def take(self, text: str) -> None:
        """Copies a text, to the clipboard and to a file."""
        if not text:
            self._tell("nothing to copy here", "warning")
            return
        try:
            path = copy(self, text, self.session.run)
        except OSError as error:
            self._tell(f"copied; no file beside it: {error.strerror}", "warning")
            return
        self._tell(f"copied, also to {_short(path)}")

    def action_export(self) -> None:
        """Asks for a folder, and writes report.json, units.csv, screen.svg and report.html there."""
        svg = self.export_screenshot()
        self.push_screen(ExportScreen(export_folder(self.session.run)), partial(self._export, svg))

    def _export(self, svg: str, folder: Path | None) -> None:
        if folder is None:
            return
        try:
            written = export(self.state, folder, svg)
        except ProbeError as error:
            self._refused(error)
            return
        self._exported = folder
        shown = visible(str(folder))
        self.copy_to_clipboard(shown)
        self._tell(f"{len(written)} files in {shown} (copied)")

    def action_explain(self) -> None:
        """Opens the page of the selected finding."""
        panel = self.query_one(ChecksPanel)
        if self.current_panel is panel and panel.selected is not None:
            self.push_screen(ExplainScreen(panel.selected.code))

    def action_next_theme(self) -> None:
        """Goes through the themes."""
        names = [theme.name for theme in THEMES]
        self.theme = names[(names.index(self.theme) + 1) % len(names)] if self.theme in names else names[0]
        self._tell(f"theme {self.theme}")

    def action_help(self) -> None:
        """Lists the keys. Each tab keeps its own list: made anew, it takes twice as long to appear."""
        name = f"help on {self.query_one(PanelTabs).active}"
        if not self.is_screen_installed(name):
            panel = self.current_panel
            ours = [type(w) for w in (panel, *panel.query("*")) if type(w).__module__.startswith("probe_tui")]
            own = [binding for kind in dict.fromkeys(ours) for binding in vars(kind).get("BINDINGS", ())]
            self.install_screen(HelpScreen([("This tab", own)] if own else [], panel.words), name)
        self.push_screen(name)

    def get_system_commands(self, screen: Screen[object]) -> Iterable[SystemCommand]:
        """The palette holds every key's action."""
        yield from super().get_system_commands(screen)
        for key in KEYS:
            run = partial(self.call_later, self.run_action, key.action)
            yield SystemCommand(f"{key.label}: {key.help}", f"key {key.display or key.key}", run)

    # Leaving

    def action_leave(self) -> None:
        """Leaves; asks first where an engine still works that can be stopped from here."""
        if self.state.ended is None and (self.session.owns_engine or "stop" in self.session.commands):
            waits = self.state.paused is not None
            choices = ways(str(self.session.run), own=self.session.owns_engine, waits=waits)
            self.push_screen(LeaveScreen(choices), self._leave)
        else:
            self.run_worker(self._leave("stop" if self.session.owns_engine else "leave"))

    async def action_quit(self) -> None:
        """The palette's quit is this one."""
        self.action_leave()

    async def _leave(self, choice: Choice | None) -> None:
        ended = self.state.ended
        if choice == "leave" and ended is None:
            self.session.leave_running()
            still = "paused" if self.state.paused is not None and not self.session.owns_engine else "running"
            again = f"probe-tui --attach {shlex.quote(str(self.session.run))}"
            self.exit(0, message=self._last_words() if not self.session.live else f"still {still}: {again}")
        elif choice in ("stop", "leave"):
            if ended is None and not self.session.owns_engine:
                await self.session.interrupt()
            await self.session.stop()
            self.look()
            ended = self.state.ended
            self.exit(INTERRUPTED if ended is None else ended.run.exit_code, message=self._last_words())

    def _last_words(self) -> str:
        """What stays on the terminal: why the run stopped, if it did, and where everything lies."""
        ended = self.state.ended
        why = f"stopped: {ended.message}\n" if isinstance(ended, Failed) else ""
        exported = "" if self._exported is None else f"exported: {self._exported}\n"
        run = self.session.run
        return f"{why}{exported}run folder: {run}\n  probe-tui --replay {shlex.quote(str(run))}"


def _short(path: Path) -> str:
    """As a shell takes it: relative to the home, where it lies there."""
    return f"~/{path.relative_to(Path.home())}" if path.is_relative_to(Path.home()) else str(path)
