"""500 random mutations of good checkpoint folders: no crash, nothing executed, a documented exit code."""

from __future__ import annotations

import json
import pickle
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import checkpoints
import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from probe_engine import probe
from probe_engine.report import Report, encode

CHUNKS = 10
MUTATIONS = 25
"""In each chunk, of each of the two kinds of checkpoint."""

PICKLES = ("optimizer.pt", "training_args.bin", "scheduler.pt", "rng_state.pth", "pytorch_model.bin")
VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 3, 10**30, 0.5, float("nan"), float("inf"), "", "text", "../base", [], [1],
    ["a", None], {}, {"a": 1},
)  # fmt: skip


class Damage:
    """Damages one file of a folder at a time, by chance."""

    def __init__(self, folder: Path, rng: random.Random) -> None:
        self.rng = rng
        self.files = sorted(path for path in folder.rglob("*") if path.is_file())

    def once(self) -> str:
        """Does one thing to one file; says what."""
        ways: tuple[Callable[[Path], str | None], ...] = (
            self.flip, self.flip, self.cut, self.delete, self.swap, self.repeat, self.empty, self.folder,
            self.value, self.value, self.value, self.row, self.row, self.state, self.state, self.plant,
        )  # fmt: skip
        path = self.rng.choice([path for path in self.files if path.is_file()])
        way = self.rng.choice(ways)
        return f"{way.__name__} {path.name} {way(path) or ''}"

    def flip(self, path: Path) -> None:
        data = bytearray(path.read_bytes())
        for _ in range(self.rng.choice([1, 3, 30]) if data else 0):
            data[self.rng.randrange(len(data))] ^= self.rng.randrange(1, 256)
        path.write_bytes(data)

    def cut(self, path: Path) -> None:
        data = path.read_bytes()
        path.write_bytes(data[: self.rng.randrange(len(data) + 1)])

    def delete(self, path: Path) -> None:
        path.unlink()

    def swap(self, path: Path) -> str:
        other = self.rng.choice([p for p in self.files if p.is_file()])
        mine, theirs = path.read_bytes(), other.read_bytes()
        path.write_bytes(theirs)
        other.write_bytes(mine)
        return other.name

    def repeat(self, path: Path) -> None:
        path.write_bytes(path.read_bytes() * 2)

    def empty(self, path: Path) -> None:
        path.write_bytes(b"")

    def folder(self, path: Path) -> None:
        path.unlink()
        path.mkdir()

    def value(self, _: Path) -> str:
        """A value of a JSON file becomes another, mostly of another type."""
        path = self.rng.choice([p for p in self.files if p.suffix == ".json" and p.is_file()])
        try:
            tree = json.loads(path.read_bytes())
        except ValueError:
            return "no JSON any more"
        places = list(_places(tree))
        if not places:
            return "nothing to change"
        holder, key = self.rng.choice(places)
        holder[key] = self.rng.choice(VALUES)
        path.write_text(json.dumps(tree))
        return f"{path.name} {key} = {holder[key]!r}"

    def row(self, _: Path) -> str:
        """A cell of the rollouts becomes something else, goes, or its whole row comes twice."""
        (path,) = (p for p in self.files if p.suffix == ".parquet")
        try:
            rows = pq.read_table(path).to_pylist()
        except (pa.ArrowException, OSError):
            return "no table any more"
        if not rows:
            return "no rows any more"
        row = self.rng.choice(rows)
        key = self.rng.choice(list(row))
        way = self.rng.choice(["value", "value", "gone", "twice"])
        if way == "value":
            row[key] = self.rng.choice(VALUES)
        elif way == "gone":
            del row[key]
        else:
            rows.insert(self.rng.randrange(len(rows)), row)
        # JSON Lines hold any mixture of types, a table's column only one.
        path.write_text("".join(json.dumps(r) + "\n" for r in rows))
        return f"{way} {key} {row.get(key)!r}"

    def state(self, _: Path) -> str:
        """A value of the optimizer's state becomes another, mostly of another type or shape."""
        (path,) = (p for p in self.files if p.name == "optimizer.pt")
        try:
            saved = torch.load(path, weights_only=True)
        except Exception as error:  # noqa: BLE001 - damaged or planted before
            return f"no state any more: {type(error).__name__}"
        holder, key = self.rng.choice(list(_places(saved)))
        held = holder[key]
        tensors = (torch.zeros(0), torch.full((2, 2), float("nan")), torch.ones(3, dtype=torch.int64))
        changed = [*VALUES, *tensors]
        if isinstance(held, torch.Tensor) and held.numel() > 1:
            changed += 3 * [held.t(), -held, held * float("inf"), held.to(torch.complex64), held.to_sparse()]
        holder[key] = self.rng.choice(changed)
        torch.save(saved, path)
        return f"{key} = {type(holder[key]).__name__}"

    def plant(self, path: Path) -> str:
        """A pickle that would leave a trace, where pickles are expected or in place of any file."""
        path = self.rng.choice([path, path.with_name(self.rng.choice(PICKLES))])
        bomb = checkpoints.Planted(trace_of(path))
        if self.rng.random() < 0.5:
            torch.save({"state": bomb}, path)
        else:
            path.write_bytes(pickle.dumps(bomb))
        return path.name


def _places(tree: Any) -> Any:
    for key, value in list(tree.items() if isinstance(tree, dict) else enumerate(tree)):
        yield tree, key
        if isinstance(value, dict | list):
            yield from _places(value)


def trace_of(path: Path) -> Path:
    return path.parent / "executed"


@pytest.fixture(scope="module", params=["lora", "full"])
def good(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(request.param)
    checkpoints.run(folder, request.param, prompts=4, responses=2, layers=1)
    return folder


def test_the_unharmed_folder_is_healthy(good: Path) -> None:
    report = probe(good / "run" / f"checkpoint-{checkpoints.STEP}", device="cpu")
    assert report.run.exit_code == 0
    assert report.run.status == "complete"
    assert [f.code for f in report.findings if f.status in ("fail", "crash")] == []


@pytest.mark.parametrize("seed", range(CHUNKS))
def test_mutated_folders_never_crash_and_never_execute(good: Path, seed: int, tmp_path: Path) -> None:
    rng = random.Random(f"{seed} {good.name}")
    for number in range(MUTATIONS):
        folder = tmp_path / str(number)
        shutil.copytree(good, folder)
        damage = Damage(folder, rng)
        done = [damage.once() for _ in range(rng.choice([1, 1, 2]))]
        report = probe(folder / "run" / f"checkpoint-{checkpoints.STEP}", device="cpu", max_prompts=4)
        crashes = [(f.code, f.message, f.evidence) for f in report.findings if f.status == "crash"]
        assert crashes == [], done
        assert report.run.exit_code in (0, 1, 3), done
        # Whatever happened, what is told of it can be written and read.
        assert msgspec.json.decode(encode(report), type=Report).run == report.run
        assert not list(folder.rglob("executed")), done
