"""RunSpec's fields as command-line options: one list of options, in `spec.py`, for every front door."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import msgspec
import typer

from probe_engine.spec import RunSpec


def with_spec_options(command: Callable[..., None]) -> Callable[..., None]:
    """Gives `command(**flags)` one option for each field of RunSpec but the checkpoint.

    Values stay strings: `spec.resolve` converts and validates flags, environment and file alike.
    """
    own = [
        p
        for p in inspect.signature(command).parameters.values()
        if p.kind is not inspect.Parameter.VAR_KEYWORD
    ]
    added = [_parameter(field) for field in msgspec.structs.fields(RunSpec) if field.name != "checkpoint"]
    hints = get_type_hints(command, include_extras=True)
    parameters = [p.replace(annotation=hints[p.name]) for p in own] + added
    # typer reads both: the signature for order and defaults, the annotations for types.
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # inspect reads it where it is set
    command.__annotations__ = {p.name: p.annotation for p in parameters}
    return command


def _parameter(field: msgspec.structs.FieldInfo) -> inspect.Parameter:
    text, metavar, is_flag = describe(field.type)
    flag = f"--{field.name.replace('_', '-')}"
    shown = field.default not in (None, False, ())
    help_text = f"{text} (default {field.default})" if shown else text
    option = typer.Option(
        flag,
        help=help_text,
        metavar=metavar,
        show_default=False,
        rich_help_panel="Options of the run (also PROBE_… in the environment, or probe.toml)",
    )
    kind: Any = Annotated[bool if is_flag else str | None, option]
    return inspect.Parameter(
        field.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=False if is_flag else None,
        annotation=kind,
    )


def describe(kind: Any) -> tuple[str, str | None, bool]:
    """Help text, what stands for the value, and whether it is a switch."""
    text = next((m.description or "" for m in getattr(kind, "__metadata__", ())), "")
    inner = get_args(kind)[0] if get_origin(kind) is Annotated else kind
    alternatives = [get_args(a)[0] if get_origin(a) is Annotated else a for a in (inner, *get_args(inner))]
    choices = next((get_args(a) for a in alternatives if get_origin(a) is Literal), ())
    numbers = {int: "N", float: "X"}
    metavar = "|".join(choices) or next((numbers[a] for a in alternatives if a in numbers), "VALUE")
    return text, None if inner is bool else metavar, inner is bool
