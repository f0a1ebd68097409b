"""Every key, once: bindings, the help screen and the footer read this table."""

from __future__ import annotations

from dataclasses import dataclass

from textual.binding import Binding


@dataclass(frozen=True)
class Key:
    """One key of the main screen."""

    key: str
    action: str
    label: str
    """In the footer."""
    help: str
    group: str
    shown: bool = True
    """In the footer."""
    display: str | None = None
    at_once: bool = False
    """Before the widget that has the keys may take it, so that what is typed next already finds it done."""

    @property
    def name(self) -> str:
        """The action's, without its arguments."""
        return self.action.partition("(")[0]

    @property
    def binding(self) -> Binding:
        """As Textual wants it."""
        return Binding(
            self.key,
            self.action,
            self.label,
            show=self.shown,
            key_display=self.display,
            priority=self.at_once,
        )


KEYS = (
    Key("n", "next_stage", "next", "run the next stage, then wait", "Run"),
    Key("a", "run_all", "run all", "run to the end", "Run"),
    Key("p", "pause", "pause", "pause between micro-batches, or go on", "Run"),
    Key("x", "stop", "stop", "stop the run; what was found stays", "Run"),
    Key("r", "rerun", "re-run", "run again with changed options", "Run"),
    Key("q", "leave", "quit", "leave; asks what to do with a running engine (also ^q)", "Run"),
    Key("ctrl+q", "leave", "quit", "leave", "Run", False),
    Key("question_mark", "help", "help", "this list", "Look", display="?"),
    Key("left_square_bracket", "seek(-0.05)", "back", "5% back", "Replay", display="["),
    Key("right_square_bracket", "seek(0.05)", "forth", "5% forward", "Replay", display="]"),
    Key("comma", "speed(0.5)", "slower", "half as fast", "Replay", display=","),
    Key("full_stop", "speed(2)", "faster", "twice as fast", "Replay", display="."),
    Key("1", "tab('checks')", "Checks", "does gradient flow, and what else was found", "Tabs", False),
    Key("2", "tab('units')", "Units", "contributions by prompt", "Tabs", False),
    Key("3", "tab('influence')", "Influence", "whose entropy moves by training on whom", "Tabs", False),
    Key("4", "tab('entropy')", "Entropy", "every estimate of the predicted change", "Tabs", False),
    Key("5", "tab('realized')", "Realized", "prediction against measurement", "Tabs", False),
    Key("6", "tab('log')", "Log", "the engine's own words", "Tabs", False),
    Key("y", "copy", "copy", "copy what is selected (also to a file)", "Take"),
    Key("c", "command", "command", "copy the headless command that gives this number", "Take", False),
    Key("o", "export", "export", "write report.json, units.csv, screen.svg and report.html", "Take"),
    Key("slash", "filter", "filter", "filter the list of this tab", "Look", display="/", at_once=True),
    Key("b", "breakpoint", "break", "breakpoint: never, on fail, on warn", "Run"),
    Key("e", "explain", "explain", "what the selected finding means", "Look", False),
    Key("t", "next_theme", "theme", "next theme", "Look", False),
)
"""In the bottom line's order. Keys of single widgets stand in their own BINDINGS; the help shows them too."""

COMMANDS = frozenset(k.name for k in KEYS if k.group in ("Run", "Replay")) - {"leave"}
"""Actions that a session may refuse; all others are the screen's own."""
