"""Leave: what to do with an engine that still works."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import ClassVar, Literal

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.widgets import Static

from probe_tui.screens.modal import Modal

Choice = Literal["stop", "leave", "stay"]


def ways(run: str, *, own: bool, waits: bool) -> dict[Choice, str]:
    """What each choice means.

    Args:
        run: the run's folder.
        own: the engine is this screen's; else another one started it.
        waits: it is paused.
    """
    attach = f"come back with\n  probe-tui --attach {shlex.quote(run)}"
    if own:
        leave = f"leave it running, to its end and past any breakpoint;\n{attach}"
    else:
        leave = f"leave it as it is: {'waiting, and p goes on' if waits else 'running'};\n{attach}"
    return {"stop": "stop it and leave; what was found stays", "leave": leave, "stay": "stay here"}


class LeaveScreen(Modal[Choice]):
    """Asks: stop it, leave it running, or stay.

    Args:
        ways: what each choice means here.
    """

    DEFAULT_CSS = """
    LeaveScreen { align: center middle; }
    LeaveScreen Vertical {
        width: auto; max-width: 100%; height: auto; border: round $warning; padding: 0 1;
        background: $surface;
    }
    LeaveScreen Static { width: auto; max-width: 100%; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("s", "dismiss('stop')", "stop the engine and leave"),
        Binding("l", "dismiss('leave')", "leave it running"),
        Binding("escape,c", "dismiss('stay')", "stay"),
    ]

    def __init__(self, ways: Mapping[Choice, str]) -> None:
        super().__init__()
        self._ways = ways

    def compose(self) -> ComposeResult:
        """The question and its keys."""
        keys: dict[Choice, str] = {"stop": "s", "leave": "l", "stay": "c"}
        with Vertical() as box:
            box.border_title = "The engine is still at work"
            for choice, words in self._ways.items():
                indented = words.replace("\n", "\n   ")
                yield Static(f"{keys[choice]}  {indented}", markup=False)
