"""Where runs live: new folders, re-runs beside them, old ones gone, none that is in use."""

from __future__ import annotations

import os
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
import recorded

from probe_engine.errors import ProbeError
from probe_engine.spec import RunSpec
from probe_tui.runs import in_use, next_run, prune, run_folder, runs_folder

NOW = datetime(2026, 7, 31, 12, 0, 5, tzinfo=UTC).timestamp()
LATER = 10 * 24 * 3600.0


def later(run: Path) -> float:
    return run.stat().st_mtime + LATER


def test_a_run_is_named_by_its_moment_and_its_checkpoint(tmp_path: Path) -> None:
    made = run_folder(RunSpec(checkpoint="out/check point:200/"), root=tmp_path, now=lambda: NOW)
    assert made == tmp_path / "20260731T120005Z-check-point-200"
    assert made.is_dir()


@pytest.mark.parametrize("checkpoint", [None, "/", "…", ".."])
def test_a_checkpoint_without_a_name_has_a_run_all_the_same(tmp_path: Path, checkpoint: str | None) -> None:
    made = run_folder(RunSpec(checkpoint=checkpoint), root=tmp_path)
    assert made.parent == tmp_path
    assert made.is_dir()


def test_two_sessions_in_a_second_do_not_share_a_folder(tmp_path: Path) -> None:
    made = [run_folder(RunSpec(checkpoint="c"), root=tmp_path, now=lambda: NOW).name for _ in range(3)]
    assert made == [f"20260731T120005Z-c{n}" for n in ("", ".2", ".3")]


def test_out_beats_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_folder(RunSpec(out="mine"), root=tmp_path / "cache") == tmp_path / "mine"
    assert not (tmp_path / "cache").exists()


def test_a_rerun_lies_beside_the_first_one(tmp_path: Path) -> None:
    first = tmp_path / "run.v1"
    assert [next_run(first).name for _ in range(2)] == ["run.v1.2", "run.v1.3"]


@pytest.mark.skipif(sys.platform != "linux", reason="the cache lies elsewhere")
def test_the_cache_is_the_user_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert runs_folder() == tmp_path / "probe-tui" / "runs"


def test_a_cache_that_can_t_be_written_is_said_with_its_remedy(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ProbeError, match="can't be made: Not a directory") as refused:
        run_folder(RunSpec(checkpoint="c"), root=tmp_path / "file" / "runs")
    assert refused.value.code == "RUN003"
    assert "--out" in refused.value.commands[0]


def test_the_newest_stay_and_what_is_no_run_is_left_alone(tmp_path: Path) -> None:
    runs = [tmp_path / f"2026073{n}T000000Z-c" for n in range(6)]
    for run in (*runs, tmp_path / "my notes", tmp_path / "elsewhere"):
        run.mkdir()
    (tmp_path / "20200101T000000Z-link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "20200101T000000Z-file").write_text("")
    prune(tmp_path, runs[0], kept=3, now=lambda: later(tmp_path))
    left = {path.name for path in tmp_path.iterdir()}
    gone = {path.name for path in runs} - left
    assert gone == {runs[1].name, runs[2].name}
    assert {"my notes", "elsewhere", "20200101T000000Z-link", "20200101T000000Z-file"} <= left


def test_a_new_run_prunes_the_old_ones(tmp_path: Path) -> None:
    for n in range(25):
        (tmp_path / f"20200101T0000{n:02}Z-c").mkdir()
    run_folder(RunSpec(checkpoint="c"), root=tmp_path, now=lambda: later(tmp_path))
    assert len(list(tmp_path.iterdir())) == 20


def test_in_use_is_what_was_written_lately_or_whose_process_lives(tmp_path: Path) -> None:
    dead, alive = tmp_path / "dead", tmp_path / "alive"
    recorded.write(dead, recorded.working(1))
    recorded.write(alive, recorded.working(1, pid=os.getpid()))
    assert in_use(dead)
    assert not in_use(dead, now=lambda: later(dead))
    assert in_use(alive, now=lambda: later(alive))
    (dead / "events.jsonl").write_bytes(b"nonsense\n")
    assert not in_use(dead, now=lambda: later(dead))
