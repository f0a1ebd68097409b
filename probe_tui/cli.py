"""`probe-tui`: one command."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer.core import TyperCommand

from probe_engine import __version__
from probe_engine.errors import USAGE, ProbeError, UsageError
from probe_engine.spec import LISTS, resolve
from probe_tui import output
from probe_tui.options import with_spec_options

ELSEWHERE = {
    "learning-rate": "lr",
    "batch-size": "micro-batch",
    "per-device-train-batch-size": "micro-batch",
    "num-prompts": "max-prompts",
    "limit": "max-prompts",
    "completions": "rollouts",
    "data": "rollouts",
    "dataset": "prompts",
    "reward-fn": "reward",
    "reward-funcs": "reward",
    "model": "base",
    "base-model": "base",
    "max-length": "max-completion-length",
    "max-new-tokens": "max-completion-length",
    "temperature": "policy-temperature",
    "output": "out",
    "output-dir": "out",
    "run": "attach",
    "check": "doctor",
    "no-tui": "plain",
}
"""Options as other tools call them, and what they are called here."""


class Hinting(TyperCommand):
    """Knows what people mean who come from other tools."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """As typer does.

        Raises:
            UsageError: an option of another tool.
        """
        for typed in args:
            name = typed.removeprefix("--").partition("=")[0].replace("_", "-")
            if typed.startswith("--") and name in ELSEWHERE:
                raise UsageError(f"no such option: --{name}", f"here it is --{ELSEWHERE[name]}")
        return super().parse_args(ctx, args)


app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.command(cls=Hinting)
@with_spec_options
def command(
    checkpoint: Annotated[
        str | None, typer.Argument(help="checkpoint folder or file", show_default=False)
    ] = None,
    *,
    json: Annotated[
        bool, typer.Option("--json", help="the report on standard output, nothing else there")
    ] = False,
    plain: Annotated[
        bool, typer.Option("--plain", help="append-only text, for logs and screen readers")
    ] = False,
    doctor: Annotated[
        bool,
        typer.Option("--doctor", help="gradient-flow check only; without CHECKPOINT: of this installation"),
    ] = False,
    plan: Annotated[
        bool, typer.Option("--plan", help="forecast only: tokens, operations, memory and time, by method")
    ] = False,
    style: Annotated[
        Literal["text", "github", "junit"],
        typer.Option("--format", help="of --doctor's findings: for people, or for a CI system"),
    ] = "text",
    selftest: Annotated[
        bool, typer.Option("--selftest", help="inject every fault on a tiny model: is each one named?")
    ] = False,
    demo: Annotated[bool, typer.Option("--demo", help="on a demo checkpoint, made on first use")] = False,
    attach: Annotated[
        str | None,
        typer.Option("--attach", metavar="RUN", help="follow a run that is going on", show_default=False),
    ] = None,
    replay: Annotated[
        str | None,
        typer.Option("--replay", metavar="RUN", help="play a recorded run", show_default=False),
    ] = None,
    explain: Annotated[
        str | None, typer.Option("--explain", metavar="CODE", help="what a finding means", show_default=False)
    ] = None,
    list_checks: Annotated[bool, typer.Option("--list-checks", help="every finding, a line each")] = False,
    json_schema: Annotated[bool, typer.Option("--json-schema", help="the JSON Schema of the report")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="more narration on standard error")] = False,
    version: Annotated[bool, typer.Option("--version", help="the version")] = False,
    **flags: Any,
) -> None:
    """Does gradient flow, and what will the next step do to the policy's entropy?

    Exit codes: 0 done · 1 done, with a finding at or above --fail-on · 2 usage ·
    3 checkpoint or rollouts unreadable · 4 the engine died · 130 interrupted.
    """
    from probe_tui import headless, interactive, pages

    if version:
        output.say(f"probe-tui {__version__}")
    elif explain is not None:
        output.say(pages.explain(explain))
    elif list_checks:
        output.say(pages.list_checks())
    elif json_schema:
        output.say(pages.json_schema())
    elif selftest:
        raise typer.Exit(headless.selftest(as_json=json))
    elif attach is not None or replay is not None:
        if attach is not None and replay is not None:
            raise UsageError("--attach follows a run, --replay plays one: give one of the two")
        raise typer.Exit(interactive.watch(attach, replay))
    else:
        if demo:
            if checkpoint is not None:
                raise UsageError("--demo brings its own checkpoint: leave CHECKPOINT out")
            checkpoint = str(headless.demo_checkpoint())
        for name in LISTS:
            flags[name] = tuple(flags[name].split(",")) if flags[name] else None
        flags = {name: value for name, value in flags.items() if value is not False}
        resolved = resolve({"checkpoint": checkpoint, **flags}, os.environ, Path.cwd())
        if style != "text" and (json or not doctor):
            raise UsageError("--format is for the findings of --doctor: give both, and no --json")
        if doctor and plan:
            raise UsageError(
                "--doctor measures nothing, --plan forecasts the measurement: give one of the two"
            )
        if doctor:
            raise typer.Exit(headless.doctor(resolved, style, as_json=json, verbose=verbose))
        if resolved.spec.checkpoint is None:
            raise UsageError(
                "expected a CHECKPOINT, got none",
                "probe-tui path/to/checkpoint-200, or probe-tui --demo",
            )
        if plan:
            raise typer.Exit(headless.plan(resolved, as_json=json, verbose=verbose))
        if not (json or plain):
            if interactive.in_terminal():
                raise typer.Exit(interactive.drive(resolved))
            typer.echo("probe-tui: no screen here, plain text follows", err=True)
        raise typer.Exit(headless.run(resolved, as_json=json, verbose=verbose))


def main() -> None:
    """Console entry: no traceback reaches a user."""
    output.prepare()
    # Torch reads it as it is loaded, here or in the engine: large tensors lie in pages of 2 MB, where the
    # system has them, which saves a tenth of full finetuning's time.
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    try:
        app(standalone_mode=True)
    except ProbeError as error:
        _say(error)
        sys.exit(error.exit_code)
    finally:
        output.let_go()


def _say(error: ProbeError) -> None:
    prefix = "usage: " if error.exit_code == USAGE else f"{error.code} " if error.code else ""
    sys.stderr.write(f"probe-tui: {prefix}{error.message}\n")
    if error.remedy:
        sys.stderr.write(f"  remedy: {error.remedy}\n")
    for line in error.commands:
        sys.stderr.write(f"    {line}\n")
