"""Pickles read without executing them: a symbolic machine over `pickletools.genops`.

It follows the opcodes that build dicts, tuples and plain values. Every class, function and call
becomes an `Opaque`: a name and what was handed to it. Nothing is imported and nothing is called.
"""

from __future__ import annotations

import io
import pickletools
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from probe_engine.sources.checkpoints.library import library_call

MAX_BYTES = 1 << 20
"""What is read at most; trainer arguments take some 10 kB. Time is linear in it."""

_MARK = object()


@dataclass(slots=True)
class Opaque:
    """An object that unpickling would have built."""

    name: str = ""
    """`module.name` of its class or function, empty where unknown."""
    args: tuple[object, ...] = ()
    state: object = None
    """What BUILD would have set, usually a dict of attributes."""


@dataclass(slots=True)
class StaticPickle:
    """What a pickle would build, and the names that it would import."""

    top: object = None
    imports: list[str] = field(default_factory=list)
    complete: bool = False
    """Did the pickle end with STOP, and was every opcode's operand there?"""


def pickled(path: Path) -> bytes:
    """The pickle inside a `torch.save` archive, else the file's beginning; at most `MAX_BYTES`.

    Raises:
        ValueError: the file can't be read, or its archive is damaged or holds no pickle.
    """
    with library_call(ValueError):
        if not zipfile.is_zipfile(path):
            with path.open("rb") as file:
                return file.read(MAX_BYTES)
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                if name.rpartition("/")[2] == "data.pkl":
                    with archive.open(name) as member:
                        return member.read(MAX_BYTES)
    raise ValueError("the archive holds no data.pkl")


def read_pickles(data: bytes, limit: int = 8) -> Iterator[StaticPickle]:
    """Reads consecutive pickles (a `torch.save` file of the old format holds several).

    Args:
        data: any bytes at all.
        limit: how many pickles to read at most.
    """
    stream = io.BytesIO(data)
    for _ in range(limit):
        if stream.tell() == len(data):
            return
        result = _read(stream)
        yield result
        if not result.complete:
            return


def _read(stream: io.BytesIO) -> StaticPickle:
    result = StaticPickle()
    stack: list[Any] = []
    memo: dict[int, Any] = {}
    try:
        for opcode, argument, _ in pickletools.genops(stream):
            _step(opcode, argument, stack, memo, result)
    except (ValueError, IndexError, KeyError):
        # What genops, an empty stack or an unknown memo entry raise: the bytes are no pickle.
        return result
    result.complete = True
    return result


def _step(
    opcode: pickletools.OpcodeInfo,
    argument: Any,
    stack: list[Any],
    memo: dict[int, Any],
    result: StaticPickle,
) -> None:
    """One opcode: its operands are taken off the stack, its result is pushed.

    Containers are never copied or compared, so the work is linear in the number of opcodes.
    """
    name = opcode.name
    operands, items = _take(opcode, stack)
    match name:
        case "STOP":
            result.top = operands[0]
        case "MARK":
            stack.append(_MARK)
        case "NONE" | "NEWTRUE" | "NEWFALSE":
            stack.append({"NONE": None, "NEWTRUE": True, "NEWFALSE": False}[name])
        case "DUP":
            stack += [operands[0], operands[0]]
        case "PUT" | "BINPUT" | "LONG_BINPUT":
            memo[argument] = stack[-1]
        case "MEMOIZE":
            memo[len(memo)] = operands[0]
            stack.append(operands[0])
        case "GET" | "BINGET" | "LONG_BINGET":
            stack.append(memo[argument])
        case "EMPTY_TUPLE" | "TUPLE" | "TUPLE1" | "TUPLE2" | "TUPLE3":
            stack.append((*operands, *items))
        case "EMPTY_DICT":
            stack.append({})
        case "DICT":
            stack.append(_set_items({}, items))
        case "SETITEM" | "SETITEMS":
            stack.append(_set_items(operands[0], operands[1:] or items))
        case "GLOBAL" | "INST" | "STACK_GLOBAL":
            words = operands if name == "STACK_GLOBAL" else argument.split(" ", 1)
            full = ".".join(words) if all(isinstance(word, str) for word in words) else ""
            result.imports.append(full)
            stack.append(Opaque(full, tuple(items)))
        case "REDUCE" | "NEWOBJ" | "NEWOBJ_EX":
            called = operands[0]
            args = operands[1] if isinstance(operands[1], tuple) else ()
            stack.append(Opaque(called.name if isinstance(called, Opaque) else "", args))
        case "BUILD":
            built, state = operands
            if isinstance(built, Opaque):
                built.state = state
            stack.append(built)
        case "PERSID" | "EXT1" | "EXT2" | "EXT4":
            stack.append(Opaque())
        case _ if opcode.arg is not None and not opcode.stack_before:
            stack += [argument for _ in opcode.stack_after]
        case _:
            stack += [Opaque() for _ in opcode.stack_after]


def _take(opcode: pickletools.OpcodeInfo, stack: list[Any]) -> tuple[list[Any], list[Any]]:
    """Pops what the opcode consumes: the operands below its mark, the items above it."""
    before = opcode.stack_before
    items: list[Any] = []
    if pickletools.markobject in before:
        while (item := stack.pop()) is not _MARK:
            items.append(item)
        items.reverse()
        before = before[: before.index(pickletools.markobject)]
    operands = [stack.pop() for _ in before]
    operands.reverse()
    return operands, items


def _set_items(target: Any, items: list[Any]) -> Any:
    if isinstance(target, dict):
        for key, value in zip(items[::2], items[1::2], strict=False):
            if isinstance(key, str):
                target[key] = value
    return target
