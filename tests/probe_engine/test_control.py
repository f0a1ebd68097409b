"""The gate: where a run waits, and what makes it go on."""

from __future__ import annotations

import os
from contextlib import nullcontext
from pathlib import Path

import pytest

from probe_engine import control, events
from probe_engine.control import Break, Command, Continue, ControlFile, Gate, Pause, Rerun, Step, Stop, send
from probe_engine.report import finding


class Scripted:
    """A gate whose waiting is played: each sleep appends the next command."""

    def __init__(self, run: Path, script: list[Command]) -> None:
        self.run = run
        self.script = script
        self.said: list[events.AnyEvent] = []
        self.gate = Gate(ControlFile(run), sleep=self.sleep)

    def sleep(self, _seconds: float) -> None:
        assert self.script, "waits for a command that never comes"
        send(self.run, self.script.pop(0))

    def pass_stages(self, *names: str) -> list[str]:
        """Which of these stages the run waited to begin."""
        before = len(self.said)
        for name in names:
            self.gate(events.StageStarted(stage=name), self.said.append)
            self.gate(events.Progress(stage=name, done=1, total=2), self.said.append)
        return [e.stage for e in self.said[before:] if isinstance(e, events.Paused)]


def test_without_a_command_nothing_waits(tmp_path: Path) -> None:
    assert Scripted(tmp_path, []).pass_stages("load", "rollouts") == []


def test_step_runs_one_stage_and_waits_before_the_next(tmp_path: Path) -> None:
    send(tmp_path, Step())
    played = Scripted(tmp_path, [Step(), Step()])
    assert played.pass_stages("load", "rollouts", "flow") == ["rollouts", "flow"]
    assert played.script == []


def test_two_steps_ahead_are_two_stages(tmp_path: Path) -> None:
    send(tmp_path, Step())
    send(tmp_path, Step())
    assert Scripted(tmp_path, [Step()]).pass_stages("load", "rollouts", "flow") == ["flow"]


def test_continue_ends_stepping(tmp_path: Path) -> None:
    send(tmp_path, Step())
    assert Scripted(tmp_path, [Continue()]).pass_stages("load", "rollouts", "flow", "measure") == ["rollouts"]


def test_pause_waits_between_micro_batches_and_step_then_runs_to_the_stage_s_end(tmp_path: Path) -> None:
    played = Scripted(tmp_path, [Step(), Continue()])
    send(tmp_path, Pause())
    assert played.pass_stages("measure", "estimate") == ["", "estimate"]
    reasons = [e.reason for e in played.said if isinstance(e, events.Paused)]
    assert reasons == ["pause", "step"]


@pytest.mark.parametrize(("on", "status", "waits"), [
    ("warn", "warn", True), ("warn", "fail", True), ("fail", "warn", False), ("fail", "crash", True),
    ("warn", "info", False), ("never", "fail", False),
])  # fmt: skip
def test_breakpoints(tmp_path: Path, on: str, status: str, waits: bool) -> None:
    send(tmp_path, Break(on=on))  # type: ignore[arg-type]
    played = Scripted(tmp_path, [Continue()] if waits else [])
    found = finding("OPT007", status, "η = 0")  # type: ignore[arg-type]
    played.gate(events.FindingEvent(finding=found), played.said.append)
    expected = [events.Paused(stage="", reason="breakpoint: OPT007")] if waits else []
    assert played.said == expected


def test_stop_ends_a_run_that_works_and_one_that_waits(tmp_path: Path) -> None:
    send(tmp_path, Step())
    waiting = Scripted(tmp_path, [Stop()])
    with pytest.raises(control.StopRequested):
        waiting.pass_stages("load", "rollouts")
    send(tmp_path, Stop())
    with pytest.raises(control.StopRequested):
        Gate(ControlFile(tmp_path))(events.StageStarted(stage="load"), lambda _: None)


def test_a_waiting_run_whose_parent_is_gone_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    send(tmp_path, Step())
    gate = Gate(ControlFile(tmp_path), sleep=lambda _: None)
    gate(events.StageStarted(stage="load"), lambda _: None)
    monkeypatch.setattr(os, "getppid", lambda: 1)
    with pytest.raises(control.StopRequested):
        gate(events.StageStarted(stage="rollouts"), lambda _: None)


def test_the_parent_may_have_gone_before_the_gate_was_made(tmp_path: Path) -> None:
    send(tmp_path, Step())
    gate = Gate(ControlFile(tmp_path), sleep=lambda _: None, parent=os.getpid())
    gate(events.StageStarted(stage="load"), lambda _: None)
    with pytest.raises(control.StopRequested):
        gate(events.StageStarted(stage="rollouts"), lambda _: None)
    assert gate.wait_for_rerun() is None


def test_the_last_word_of_a_parent_that_is_gone_counts(tmp_path: Path) -> None:
    send(tmp_path, Step())
    played = Scripted(tmp_path, [Continue()])
    played.gate = Gate(ControlFile(tmp_path), sleep=played.sleep, parent=os.getpid())
    assert played.pass_stages("load", "rollouts", "flow") == ["rollouts"]


@pytest.mark.parametrize("held", [Pause(attached=True), Break(on="warn", attached=True)])
def test_a_screen_that_attached_holds_a_run_that_its_parent_left(tmp_path: Path, held: Command) -> None:
    """With the commands of a parent that is gone, the run would end instead."""
    nobody: list[events.AnyEvent] = []
    seen = events.FindingEvent(finding=finding("STAT001", "warn", "little is left"))
    passed = events.Progress(stage="measure", done=1, total=2)
    plain = Pause() if isinstance(held, Pause) else Break(on="warn")
    for command, ends in ((held, False), (plain, True)):
        run = tmp_path / str(ends)
        run.mkdir()
        played = Scripted(run, [Continue()])
        played.gate = Gate(ControlFile(run), sleep=played.sleep, parent=os.getpid())  # not its parent
        if ends:
            played.script = [Pause()]
        send(run, command)
        with pytest.raises(control.StopRequested) if ends else nullcontext():
            for event in (passed, seen):
                played.gate(event, nobody.append)
    assert len([e for e in nobody if isinstance(e, events.Paused)]) == 2


def test_after_the_end_a_rerun_or_a_stop(tmp_path: Path) -> None:
    again = Scripted(tmp_path, [Continue(), Rerun(run="next")])
    assert again.gate.wait_for_rerun() == Rerun(run="next")
    send(tmp_path, Stop())
    assert Gate(ControlFile(tmp_path), sleep=lambda _: None).wait_for_rerun() is None


def test_half_written_and_unknown_lines_wait_or_are_passed_over(tmp_path: Path) -> None:
    control_file = ControlFile(tmp_path)
    assert control_file.poll() == []
    path = tmp_path / "control.jsonl"
    path.write_bytes(b'{"do":"step"}\nnonsense\n{"do":"from the future"}\n{"do":"pau')
    assert control_file.poll() == [Step()]
    with path.open("ab") as more:
        more.write(b'se"}\n')
    assert control_file.poll() == [Pause()]
    assert control_file.poll() == []
