"""Taking a number out of the screen."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import finished_states
import pytest
from textual.app import App
from typer.testing import CliRunner

from probe_engine.spec import Resolved, Setting, resolve
from probe_tui import cli, headless
from probe_tui.clipboard import copy, headless_command


class Terminal(App[None]):
    """Remembers what a terminal would have got."""

    copied = ""

    def copy_to_clipboard(self, text: str) -> None:
        self.copied = text


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_the_text_goes_to_the_terminal_and_to_a_file_of_the_run(tmp_path: Path) -> None:
    app = Terminal()
    path = copy(app, "δH₁ = −1\n", tmp_path / "run")
    assert path == tmp_path / "run" / "clipboard.txt"
    assert (app.copied, path.read_text("utf-8")) == ("δH₁ = −1\n", "δH₁ = −1\n")


def test_a_run_folder_that_can_not_be_written_is_no_obstacle(tmp_path: Path, cache: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    assert copy(Terminal(), "text", tmp_path / "file").is_relative_to(cache)
    path = copy(Terminal(), "other", None)
    assert path.is_relative_to(cache)
    assert path.read_text("utf-8") == "other"


def test_the_terminal_has_the_text_even_where_no_file_can_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    app = Terminal()
    with pytest.raises(OSError, match="file"):
        copy(app, "text", tmp_path / "file")
    assert app.copied == "text"


def test_text_that_is_no_unicode_is_copied_all_the_same(tmp_path: Path) -> None:
    app = Terminal()
    path = copy(app, "a\udcffb", tmp_path)
    assert (app.copied, path.read_bytes()) == ("a?b", b"a?b")


def test_the_command_has_what_is_not_default_quoted_for_the_shell() -> None:
    config = {
        "checkpoint": Setting("my runs/checkpoint 30", "flag"),
        "weighting": Setting("dr_grpo", "default"),
        "lr": Setting(1e-6, "environment"),
        "out": Setting("runs/probe", "flag"),
        "trust": Setting(True, "file"),
        "select": Setting(["GRAD", "OPT"], "flag"),
        "ignore": Setting([], "flag"),
        "base": Setting("-odd", "flag"),
        "prompts": Setting(None, "flag"),
    }
    command = headless_command(finished_states.report(config=config), '.findings[] | select(.code=="X")')
    assert command == (
        "probe-tui 'my runs/checkpoint 30' --json --lr 1e-06 --trust --select GRAD,OPT --base=-odd"
        """ | jq '.findings[] | select(.code=="X")'"""
    )


def test_the_command_line_means_the_same_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {
        "checkpoint": "-odd/check point",
        "lr": 2.5e-7,
        "max_prompts": 7,
        "trust": True,
        "ignore": ("STAT", "OPT010"),
        "weighting": "per_token",
        "rollouts": "it's here; rm -rf $HOME",
        "out": "elsewhere",
    }
    before = resolve(given)
    command = headless_command(finished_states.report(config=before.config()), ".verdict")
    words = shlex.split(command)
    assert words[words.index("|") :] == ["|", "jq", ".verdict"]

    ran: list[Resolved] = []

    def run(resolved: Resolved, **_: Any) -> int:
        ran.append(resolved)
        return 0

    monkeypatch.setattr(headless, "run", run)
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(cli.app, words[1 : words.index("|")])
    assert (result.exit_code, result.exception) == (0, None)
    (after,) = ran
    assert after.spec == resolve(given | {"checkpoint": "./-odd/check point", "out": None}).spec


@pytest.mark.parametrize(
    ("config", "folder", "command"),
    [
        ({}, "my run", "jq .verdict 'my run/report.json'"),
        (
            {"checkpoint": Setting(None, "default"), "out": Setting("r", "call")},
            None,
            "jq .verdict r/report.json",
        ),
        ({}, None, "jq .verdict report.json"),
    ],
)
def test_live_objects_have_no_command_line_but_a_report(
    config: dict[str, Setting], folder: str | None, command: str
) -> None:
    run = finished_states.RunInfo(folder=folder, status="complete", exit_code=0)
    assert headless_command(finished_states.report(config=config, run=run), ".verdict") == command
