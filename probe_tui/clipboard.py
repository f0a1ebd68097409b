"""Taking a number out of the screen: to the clipboard, to a file, or as a command that gives it again."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from platformdirs import user_cache_path
from textual.app import App

from probe_engine.report import Report

FILE = "clipboard.txt"


def copy(app: App[Any], text: str, folder: Path | None = None) -> Path:
    """Copies to the terminal's clipboard (OSC 52), which not every terminal has, and to a file.

    Args:
        folder: where the file goes, the run folder; the user's cache where it can't be written.

    Returns:
        The file.

    Raises:
        OSError: there is no place for the file. The terminal got the text all the same.
    """
    # A file name that is no Unicode can be shown, but not sent.
    data = text.encode("utf-8", "replace")
    app.copy_to_clipboard(data.decode())
    if folder is not None:
        try:
            return _written(folder / FILE, data)
        except OSError:
            pass  # a recording of someone else's, for one
    return _written(user_cache_path("probe-tui") / FILE, data)


def _written(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def headless_command(report: Report, json_path: str) -> str:
    """The command line that gives the number without a screen.

    Options with their default value are left out, and so is the run folder: the command writes none. For
    live objects, which no command line can name, the number is read from the run's report.

    Args:
        json_path: where the report holds it, for jq.
    """
    checkpoint = report.config.get("checkpoint")
    jq = f"jq {shlex.quote(json_path)}"
    if checkpoint is None or checkpoint.value is None:
        out = report.config.get("out")
        folder = report.run.folder or (None if out is None else out.value)
        return f"{jq} {shlex.quote(f'{folder}/report.json' if folder else 'report.json')}"
    words = ["probe-tui", _not_an_option(str(checkpoint.value)), "--json"]
    for name, setting in report.config.items():
        if setting.origin != "default" and name not in ("checkpoint", "out"):
            words += _words(f"--{name.replace('_', '-')}", setting.value)
    return f"{shlex.join(words)} | {jq}"


def _words(option: str, value: Any) -> list[str]:
    """The option as one types it; a switch that is off, and what was not given, are nothing."""
    match value:
        case None | False:
            return []
        case True:
            return [option]
        case list() | tuple():
            return _words(option, ",".join(map(str, value))) if value else []
        case _:
            text = str(value)
            return [f"{option}={text}"] if text.startswith("-") else [option, text]


def _not_an_option(path: str) -> str:
    return f"./{path}" if path.startswith("-") else path
