"""Export: where the files go."""

from __future__ import annotations

import os
from pathlib import Path
from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.widgets import Input

from probe_tui.renderables.cells import paragraph, visible
from probe_tui.screens.modal import Modal
from probe_tui.widgets.page import Page

FILES = "report.json, units.csv, screen.svg and report.html are written to this folder:"


class ExportScreen(Modal[Path | None]):
    """One line to type a folder into.

    Args:
        folder: what stands there at first.
    """

    DEFAULT_CSS = """
    ExportScreen { align: center middle; }
    ExportScreen Vertical {
        width: 100; max-width: 100%; height: auto; border: round $primary; padding: 0 1; background: $surface;
    }
    ExportScreen Input, ExportScreen Input:focus { border: none; height: 1; padding: 0; background: $panel; }
    """
    AUTO_FOCUS = "Input"
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "dismiss", "close")]

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder
        self._shown = visible(str(folder))  # a name that is no Unicode can't be written to a terminal

    def compose(self) -> ComposeResult:
        """What is written, and where."""
        with Vertical() as box:
            box.border_title = "Export"
            box.border_subtitle = "enter writes · escape closes"
            yield Page(self._said)
            yield Input(self._shown, select_on_focus=False)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """`~` is the home; nothing typed is nothing written."""
        event.stop()
        typed = event.value.strip()
        if typed == self._shown:
            self.dismiss(self._folder)
        else:
            self.dismiss(Path(typed).expanduser().absolute() if typed else None)

    def _said(self, width: int) -> list[Text]:
        return paragraph(width, FILES)


def export_folder(run: Path) -> Path:
    """Where one looks for what one has asked for: the current directory, where that can be written."""
    try:
        here = Path.cwd()
    except FileNotFoundError:  # it was removed meanwhile
        return run / "export"
    return here / f"{run.name}-export" if os.access(here, os.W_OK) else run / "export"
