"""Keeps the demo in the user's cache folder: made once, whole or not at all, then reused."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
from filelock import FileLock
from platformdirs import user_cache_dir

from probe_engine.demo.recipe import Recipe
from probe_engine.errors import ProbeError

FOLDER = "demo-v1"
MANIFEST = "manifest.json"
ROOM = 16 * 2**20
"""Free bytes that making the demo asks for; it takes about one MiB."""


class Manifest(msgspec.Struct, frozen=True):
    """What a finished demo consists of. Written last."""

    recipe: Recipe
    source: dict[str, str]
    """This package's files to sha256: what another version made is made anew."""
    files: dict[str, str]
    """Path inside the demo's folder to sha256."""


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def ensure_demo(
    cache: Path | None = None,
    narrate: Callable[[str], None] = _to_stderr,
    *,
    recipe: Recipe | None = None,
) -> Path:
    """The demo's checkpoint folder; made first if it is not there, or not whole.

    Its base model lies in `../base`, its rollouts in `../completions`.

    Args:
        cache: where the demo lives; default: the user's cache folder.
        narrate: gets a line now and then while the demo is made; default: standard error.
        recipe: what to make; another recipe than last time makes the demo anew.

    Raises:
        ProbeError: the cache folder can't be written (RUN003).
    """
    home = Path(user_cache_dir("probe-tui")) if cache is None else cache
    demo = home / FOLDER
    recipe = recipe or Recipe()
    if not _is_whole(demo, recipe):
        try:
            home.mkdir(parents=True, exist_ok=True)
            _make(demo, recipe, narrate)
        except OSError as error:
            raise ProbeError(
                f"expected to write the demo checkpoint to {demo}, got: {error}. Without it there is no demo",
                "Make room there, or name another cache folder.",
                code="RUN003",
                commands=("XDG_CACHE_HOME=/tmp/cache probe-tui --demo",),
            ) from error
    return demo / f"checkpoint-{recipe.grpo_steps}"


def _make(demo: Path, recipe: Recipe, narrate: Callable[[str], None]) -> None:
    """Builds beside the final place and renames at the end: what bears the final name is finished.

    One process at a time. The system frees a killed process's lock, so that it blocks nobody; what it
    left behind is cleared by the next.
    """
    with FileLock(demo.with_suffix(".lock")):
        if _is_whole(demo, recipe):  # another process made it while this one waited
            return
        if shutil.disk_usage(demo.parent).free < ROOM:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(demo.parent))
        narrate(f"making the demo checkpoint in {demo}: about half a minute, only this once")
        # Imported here: it brings torch and transformers along.
        from probe_engine.demo.build import build

        unfinished = demo.with_suffix(".unfinished")
        for remains in (unfinished, demo):
            if remains.exists():
                shutil.rmtree(remains)
        unfinished.mkdir()
        build(unfinished, recipe, narrate)
        manifest = Manifest(recipe, _source(), _digests(unfinished))
        (unfinished / MANIFEST).write_bytes(msgspec.json.encode(manifest))
        unfinished.rename(demo)


def _is_whole(demo: Path, recipe: Recipe) -> bool:
    """Is every file of a finished demo of this recipe there, unchanged?"""
    try:
        manifest = msgspec.json.decode((demo / MANIFEST).read_bytes(), type=Manifest)
        made_so = (manifest.recipe, manifest.source) == (recipe, _source())
        return made_so and manifest.files.items() <= _digests(demo).items()
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return False


def _source() -> dict[str, str]:
    return _digests(Path(__file__).parent, "*.py")


def _digests(folder: Path, pattern: str = "*") -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob(pattern))
        if path.is_file()
    }
