"""Keeps the demo in the user's cache folder: made once, whole or not at all, then reused."""

from __future__ import annotations

import hashlib
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
from platformdirs import user_cache_dir

from probe_engine.demo.recipe import Recipe
from probe_engine.errors import ProbeError

_FOLDER = "demo-v1"
_MANIFEST = "manifest.json"


class Manifest(msgspec.Struct, frozen=True):
    """What a finished demo consists of; written last."""

    recipe: Recipe
    files: dict[str, str]
    """Path inside the demo's folder to sha256."""


def ensure_demo(
    cache: Path | None = None,
    narrate: Callable[[str], None] = lambda line: print(line, file=sys.stderr, flush=True),
    recipe: Recipe = Recipe(),  # noqa: B008 (frozen)
) -> Path:
    """The demo's checkpoint folder, made if it is not there or not whole.

    Args:
        cache: where the demo lives; default: the user's cache folder.
        narrate: gets a line now and then while the demo is made; by default it goes to standard error.
        recipe: what to make; another recipe than last time makes the demo anew.

    Raises:
        ProbeError: the cache folder can't be written.
    """
    home = Path(user_cache_dir("probe-tui")) if cache is None else cache
    demo = home / _FOLDER
    checkpoint = demo / f"checkpoint-{recipe.grpo_steps}"
    if _is_whole(demo, recipe):
        return checkpoint
    try:
        home.mkdir(parents=True, exist_ok=True)
        _make(demo, recipe, narrate)
    except OSError as error:
        raise ProbeError(
            f"the demo checkpoint is made once, in {home}, but that folder could not be written: {error}",
            "Make room or give another cache folder; then run the demo again.",
            code="RUN003",
            commands=("XDG_CACHE_HOME=/tmp/cache probe-tui --demo",),
        ) from error
    return checkpoint


def _make(demo: Path, recipe: Recipe, narrate: Callable[[str], None]) -> None:
    """Builds beside the final place and renames at the end: what bears the final name is finished.

    One process at a time: the lock goes with its process, so that a killed one blocks nobody, and its
    remains are cleared here.
    """
    from filelock import FileLock

    with FileLock(demo.with_suffix(".lock")):
        if _is_whole(demo, recipe):  # by another process, while this one waited
            return
        from probe_engine.demo.build import build

        narrate(f"making the demo checkpoint, once, in {demo} (well under a minute)")
        building = demo.with_suffix(".building")
        for remains in (building, demo):
            if remains.exists():
                shutil.rmtree(remains)
        building.mkdir()
        build(building, recipe, narrate)
        manifest = Manifest(recipe, _digests(building))
        (building / _MANIFEST).write_bytes(msgspec.json.encode(manifest))
        building.rename(demo)


def _is_whole(demo: Path, recipe: Recipe) -> bool:
    """Is every file of a finished demo of this recipe there, unchanged?"""
    try:
        manifest = msgspec.json.decode((demo / _MANIFEST).read_bytes(), type=Manifest)
        return manifest.recipe == recipe and manifest.files.items() <= _digests(demo).items()
    except (OSError, msgspec.DecodeError):
        return False


def _digests(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
