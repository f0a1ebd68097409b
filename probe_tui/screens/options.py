"""Options: the run's options as a form, for a re-run."""

from __future__ import annotations

import re
from typing import Any, ClassVar

import msgspec
from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.widgets import Input, Label, Static

from probe_engine.errors import UsageError
from probe_engine.spec import LISTS, Resolved, RunSpec, resolve
from probe_tui.options import describe
from probe_tui.screens.modal import Modal


class OptionsScreen(Modal[Resolved | None]):
    """Every option of the run with its value; enter runs, escape goes back. Returns the new options."""

    DEFAULT_CSS = """
    OptionsScreen { align: center middle; }
    OptionsScreen #box {
        width: 90; max-width: 100%; height: 90%; border: round $primary; padding: 0 1; background: $surface;
    }
    OptionsScreen VerticalScroll { scrollbar-size-vertical: 1; scrollbar-gutter: stable; }
    OptionsScreen Label { color: $text-muted; width: 100%; }
    OptionsScreen Input, OptionsScreen Input:focus {
        border: none; height: 1; padding: 0 1; background: $panel; margin-bottom: 1;
    }
    OptionsScreen Input:focus { background: $primary-muted; }
    OptionsScreen #problem { color: $error; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "dismiss(None)", "back"),
        Binding("ctrl+r", "run", "run with these options"),
        Binding("down", "app.focus_next", "next option", show=False, priority=True),
        Binding("up", "app.focus_previous", "previous option", show=False, priority=True),
    ]

    def __init__(self, resolved: Resolved) -> None:
        super().__init__()
        self._resolved = resolved

    def compose(self) -> ComposeResult:
        """A line of help and a field for each option."""
        with Vertical(id="box") as box:
            box.border_title = "Run again with changed options"
            box.border_subtitle = "enter loads, then waits · ↑↓ or tab moves · escape goes back"
            yield Static(id="problem", markup=False)
            with VerticalScroll():
                for field in msgspec.structs.fields(RunSpec):
                    if field.name == "out":
                        continue
                    text, metavar, _ = describe(field.type)
                    name = field.name.replace("_", "-")
                    yield Label(Text(f"{name}  {text}  {metavar or 'true|false'}"))
                    yield Input(_shown(getattr(self._resolved.spec, field.name)), id=field.name)

    def on_mount(self) -> None:
        """The first thing that people change stands under the cursor."""
        self.query_one("#lr", Input).focus()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Enter runs."""
        event.stop()
        self.action_run()

    def action_run(self) -> None:
        """Checks the options; a problem is said on top and nothing is lost."""
        flags: dict[str, Any] = {}
        for entry in self.query(Input):
            name, text = entry.id or "", entry.value.strip()
            if text != _shown(getattr(self._resolved.spec, name)):
                flags[name] = tuple(text.split(",")) if name in LISTS else text
        unchanged = {n: getattr(self._resolved.spec, n) for n in self._resolved.origins if n != "out"}
        cleared = {n for n, text in flags.items() if text == ""}
        try:
            merged = {n: v for n, v in {**unchanged, **flags}.items() if n not in cleared}
            resolved = resolve(merged, flag_origin="screen")
        except UsageError as error:
            self.query_one("#problem", Static).update(Text(f"{error.message} {error.remedy}"))
            self._show_fault(error.message)
            return
        origins = {**self._resolved.origins, **dict.fromkeys(flags, "screen")}
        kept = {n: origins[n] for n in resolved.origins}
        self.dismiss(Resolved(resolved.spec, kept))

    def _show_fault(self, message: str) -> None:
        """The cursor goes to the option that the message names; without one, the page to its top."""
        named = re.search(r"--([a-z-]+)", message)
        at_fault = self.query(f"#{named[1].replace('-', '_')}").results(Input) if named else iter(())
        entry = next(at_fault, None)
        if entry is not None:
            entry.focus()
        else:
            self.query_one(VerticalScroll).scroll_home(animate=False)


def _shown(value: Any) -> str:
    if value is None or value == ():
        return ""
    return ",".join(value) if isinstance(value, tuple) else str(value)
