"""How the engine's process is started, and what is said where it can't be."""

from __future__ import annotations

from pathlib import Path

import pytest
import recorded
from workers import Start, wait_for

from probe_engine.errors import ProbeError
from probe_engine.sources.run_folder import read_spec
from probe_engine.spec import resolve
from probe_tui.engine_end import log_tail
from probe_tui.engine_process import EngineProcess


def test_the_folder_holds_options_and_commands_before_the_process_reads_them(start: Start) -> None:
    engine = start("print(open(run + '/control.jsonl').read(), flush=True); time.sleep(60)")
    wait_for(lambda: log_tail(engine.run))
    assert log_tail(engine.run) == ('{"do":"step"}',)
    assert read_spec(engine.run) == resolve({})


def test_it_has_no_input_and_a_group_of_its_own_and_the_environment(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    engine = start(
        "print(repr(sys.stdin.read()), os.getpgrp() == os.getsid(0) == os.getpid(),"
        " os.environ['CUDA_VISIBLE_DEVICES']); sys.stderr.write('narration\\n'); time.sleep(60)"
    )
    wait_for(lambda: len(log_tail(engine.run)) == 2)
    assert log_tail(engine.run) == ("'' True 7", "narration")


def test_a_folder_that_holds_a_run_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    recorded.write(tmp_path, recorded.working(1))
    with pytest.raises(ProbeError, match="holds a run already") as refused:
        EngineProcess(resolve({}), tmp_path)
    assert refused.value.code == "RUN003"
    assert [p.name for p in tmp_path.iterdir()] == ["events.jsonl"]


def test_a_place_that_can_t_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "control.jsonl").symlink_to("/dev/full")
    for run, why in ((tmp_path / "file" / "run", "Not a directory"), (tmp_path / "full", "No space left")):
        with pytest.raises(ProbeError, match=why) as refused:
            EngineProcess(resolve({}), run)
        assert refused.value.code == "RUN003"


def test_a_worker_that_can_t_be_started_is_said(tmp_path: Path) -> None:
    with pytest.raises(ProbeError, match="can't be started: No such file") as refused:
        EngineProcess(resolve({}), tmp_path / "run", worker=("/nowhere/python",))
    assert (refused.value.code, refused.value.exit_code) == ("RUN001", 4)
