"""A checkpoint is untrusted: a pickle that somebody planted in it never runs."""

from __future__ import annotations

import pickle
import shlex
from pathlib import Path

import checkpoints
import pytest
import torch
from bad_inputs import Copy

from probe_engine import probe

PLANTED = {
    "pytorch_model.bin": ("fail", 3),
    "optimizer.pt": ("fail", 1),
    "training_args.bin": ("info", 0),
    "scheduler.pt": ("ok", 0),
    "rng_state.pth": ("ok", 0),
}


@pytest.mark.parametrize("writer", ["torch.save", "old torch.save", "pickle"])
@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_pickle_leaves_no_trace(name: str, writer: str, copy: Copy, tmp_path: Path) -> None:
    status, exit_code = PLANTED[name]
    checkpoint = copy("full")
    trace = tmp_path / "executed"
    if name == "pytorch_model.bin":
        (checkpoint / "model.safetensors").unlink()
    if writer == "pickle":
        (checkpoint / name).write_bytes(pickle.dumps(checkpoints.Planted(trace)))
    else:
        zipped = writer == "torch.save"
        torch.save(
            {"a": checkpoints.Planted(trace)}, checkpoint / name, _use_new_zipfile_serialization=zipped
        )

    report = probe(checkpoint, device="cpu")
    assert not trace.exists()
    assert report.run.exit_code == exit_code
    found = [f for f in report.findings if f.code == "CKPT007"]
    assert status in [f.status for f in found]
    assert report.worst(("crash",)) == []
    if status == "fail":
        refused = next(f for f in found if f.status == "fail")
        assert "mkdir" in refused.message
        assert refused.remedy.commands == [f"probe-tui {shlex.quote(str(checkpoint))} --trust"]
    assert (report.verdict is not None) == (exit_code < 3)


def test_the_planted_pickle_would_leave_a_trace(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(checkpoints.Planted(tmp_path / "executed")))
    assert (tmp_path / "executed").exists()
