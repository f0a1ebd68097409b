"""Where the runs of interactive sessions live, and which of them stay."""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from itertools import chain, count
from pathlib import Path

from platformdirs import user_cache_path

from probe_engine.catalogue import ENTRIES
from probe_engine.errors import ProbeError
from probe_engine.events import Hello, decode
from probe_engine.spec import RunSpec

KEPT = 20
FRESH_SECONDS = 3600.0
"""A folder that was written to within this time may be in use, by a process of another machine too."""

STAMPED = re.compile(r"\d{8}T\d{6}Z-.")


def runs_folder() -> Path:
    """The folder of all runs that were given no place of their own."""
    return user_cache_path("probe-tui") / "runs"


def run_folder(spec: RunSpec, *, root: Path | None = None, now: Callable[[], float] = time.time) -> Path:
    """The folder of a new run: `--out`, else a new one in the user's cache, where old ones then go.

    Raises:
        ProbeError: the cache can't be written (RUN003).
    """
    if spec.out is not None:
        return Path(spec.out).absolute()
    root = runs_folder() if root is None else root
    name = _plain(Path(spec.checkpoint).absolute().name if spec.checkpoint else "run")
    stamp = datetime.fromtimestamp(now(), UTC).strftime("%Y%m%dT%H%M%SZ")
    first = root / f"{stamp}-{name}"
    made = _make(chain([first], _numbered(first)))
    prune(root, made, now=now)
    return made


def next_run(first: Path) -> Path:
    """The folder of a re-run: beside the session's first run, numbered from 2.

    Raises:
        ProbeError: it can't be made (RUN003).
    """
    return _make(_numbered(first))


def prune(root: Path, *spared: Path, kept: int = KEPT, now: Callable[[], float] = time.time) -> None:
    """Removes all but the newest runs; none that may be in use, and nothing that is not a run."""
    stamped = sorted(p for p in root.iterdir() if STAMPED.match(p.name) and p.is_dir() and not p.is_symlink())
    for run in stamped[: max(0, len(stamped) - kept)]:
        if run not in spared and not in_use(run, now=now):
            shutil.rmtree(run, ignore_errors=True)  # another session may prune it at the same time


def in_use(run: Path, *, now: Callable[[], float] = time.time) -> bool:
    """Whether something in it was written lately, or its process lives."""
    try:
        written = max(p.stat().st_mtime for p in (run, *run.iterdir()))
    except OSError:
        return True
    return now() - written < FRESH_SECONDS or _process_lives(run)


def _process_lives(run: Path) -> bool:
    # Not whether it writes: after its run an engine holds the model for the next one, its log closed.
    try:
        with (run / "events.jsonl").open("rb") as log:
            hello = decode(log.readline())
        if isinstance(hello, Hello):
            os.kill(hello.pid, 0)
            return True
    except PermissionError:
        return True
    except (OSError, ValueError, RecursionError):  # no log, no event, no process
        pass
    return False


def _numbered(first: Path) -> Iterator[Path]:
    return (first.with_name(f"{first.name}.{n}") for n in count(2))


def _make(candidates: Iterable[Path]) -> Path:
    for folder in candidates:
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            entry = ENTRIES["RUN003"]
            raise ProbeError(
                f"{folder}: the run folder can't be made: {error.strerror or error}",
                entry.remedy,
                code=entry.code,
                commands=entry.commands,
            ) from error
        return folder
    raise AssertionError("there is always a further number")


def _plain(name: str) -> str:
    return re.sub(r"[^\w.-]+", "-", name)[:60].strip("-") or "run"
