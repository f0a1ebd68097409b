"""The stream, its fold, and the run folder."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
import tiny
import torch

from probe_engine import events, execution, probe
from probe_engine.assembly import empty, fold
from probe_engine.control import ControlFile, Gate
from probe_engine.errors import ProbeError
from probe_engine.execution import execute
from probe_engine.report import Report, encode
from probe_engine.sources.run_folder import RunFolder, read_events, read_spec
from probe_engine.spec import resolve
from probe_engine.stages.adopt import LiveObjects


@pytest.fixture
def live() -> LiveObjects:
    model = tiny.with_lora(tiny.model("llama"))
    return LiveObjects(model, tiny.optimizer(model), tiny.batch())


def test_the_report_is_the_fold_of_the_recorded_events(live: LiveObjects, tmp_path: Path) -> None:
    run = tmp_path / "run"
    report = execute(resolve({"out": str(run), "seed": 5}), live=live)
    folded = empty()
    seen = list(read_events(run))
    for event in seen:
        folded = fold(folded, event)
    assert encode(folded) == encode(report) == (run / "report.json").read_bytes()
    assert [e.seq for e in seen] == list(range(1, len(seen) + 1))
    assert [e.time for e in seen] == sorted(e.time for e in seen)
    assert isinstance(seen[0], events.Hello)
    assert isinstance(seen[-1], events.Finished)
    assert read_spec(run).spec.seed == 5
    assert encode(msgspec.json.decode(encode(report), type=Report)) == encode(report)


def test_readers_skip_what_they_do_not_know_and_a_cut_last_line(live: LiveObjects, tmp_path: Path) -> None:
    run = tmp_path / "run"
    execute(resolve({"out": str(run)}), live=live)
    whole = list(read_events(run))
    log = run / "events.jsonl"
    log.write_bytes(b'{"kind":"from the future","x":1}\n' + log.read_bytes() + b'{"kind":"progress","sta')
    assert list(read_events(run)) == whole


def test_a_run_that_is_cut_short_keeps_what_it_found(live: LiveObjects, tmp_path: Path) -> None:
    def interrupt(event: events.AnyEvent) -> None:
        if isinstance(event, events.Units):
            raise KeyboardInterrupt

    run = tmp_path / "run"
    report = execute(resolve({"out": str(run)}), live=live, sinks=[interrupt])
    assert (report.run.status, report.run.exit_code) == ("partial", 130)
    assert len(report.units) == 1
    assert report.gradient_flow is not None
    assert report.verdict is None
    assert (run / "report.json").read_bytes() == encode(report)


def test_an_unforeseen_error_is_a_finding_and_keeps_what_was_found(
    live: LiveObjects, monkeypatch: pytest.MonkeyPatch
) -> None:
    from probe_engine import pipeline

    def broken(*_: object) -> None:
        raise RuntimeError("first line\nsecond line")

    monkeypatch.setattr(pipeline, "estimate", broken)
    report = execute(resolve({}), live=live)
    assert (report.run.status, report.run.exit_code) == ("partial", 4)
    died = report.findings[-1]
    assert (died.code, died.status) == ("RUN001", "crash")
    assert "first line" in died.message
    assert "second" not in died.message
    assert len(report.units) == len(live.batch.units)


def test_memory_running_out_says_so(live: LiveObjects, monkeypatch: pytest.MonkeyPatch) -> None:
    from probe_engine import pipeline

    def hungry(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(pipeline, "measure", hungry)
    report = execute(resolve({}), live=live)
    assert report.run.exit_code == 4
    assert "memory ran out" in report.findings[-1].message
    assert "--micro-batch" in " ".join(report.findings[-1].remedy.commands)


def test_same_seed_same_bytes_other_seed_other_split(live: LiveObjects) -> None:
    def volatile_free(report: Report) -> bytes:
        findings = [msgspec.structs.replace(f, duration_ms=None) for f in report.findings]
        assert report.forecast is not None
        forecast = {"forecast": msgspec.to_builtins(report.forecast) | {"measured": None}}
        kept = msgspec.structs.replace(report, timings={}, environment=None, findings=findings, forecast=None)
        return encode(kept) + msgspec.json.encode(forecast)

    rows = [
        {
            "prompt_tokens": [3 + n, 4],
            "prompt": "",
            "response_tokens": [5 + g, 6, n],
            "reward": float(g * n % 4),
        }
        for n in range(8)
        for g in range(3)
    ]
    objects = LiveObjects(live.model, live.optimizer, rows)
    first, again, other = (execute(resolve({"seed": s}), live=objects) for s in (0, 0, 1))
    assert volatile_free(first) == volatile_free(again)
    assert [u.role for u in first.units] != [u.role for u in other.units]


def test_a_folder_that_holds_a_run_is_refused(live: LiveObjects, tmp_path: Path) -> None:
    resolved = resolve({"out": str(tmp_path / "run")})
    execute(resolved, live=live)
    recorded = (tmp_path / "run" / "events.jsonl").read_bytes()
    with pytest.raises(ProbeError, match="holds a run already") as refused:
        execute(resolved, live=live)
    assert refused.value.code == "RUN003"
    assert (tmp_path / "run" / "events.jsonl").read_bytes() == recorded


@pytest.mark.parametrize(
    ("options", "code"),
    [({}, 0), ({"fail_on": "warn"}, 1), ({"fail_on": "warn", "ignore": ["ROLL014"]}, 0),
     ({"fail_on": "warn", "select": ["GRAD"]}, 0), ({"fail_on": "never"}, 0)],
)  # fmt: skip
def test_exit_code_counts_the_findings_it_is_told_to(
    live: LiveObjects, options: dict[str, object], code: int
) -> None:
    # Six prompts: ROLL014 warns. The rest of this model's findings is left out of the count.
    ignore = [*options.pop("ignore", []), "OPT010", "STAT"]  # type: ignore[misc]
    report = probe(live.model, optimizer=live.optimizer, batch=live.batch, ignore=tuple(ignore), **options)
    assert report.run.exit_code == code


def test_a_disk_that_fills_up_stops_the_run_and_loses_nothing(
    live: LiveObjects, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    append = RunFolder.append

    def full_after_units(self: RunFolder, event: events.Event) -> None:
        append(self, event)
        if isinstance(event, events.Units):
            self._log.close()
            self._log = Path("/dev/full").open("wb", buffering=0)  # noqa: SIM115 - the folder closes it

    monkeypatch.setattr(RunFolder, "append", full_after_units)
    heard: list[events.AnyEvent] = []
    report = execute(resolve({"out": str(tmp_path / "run")}), live=live, sinks=[heard.append])
    assert report.run.exit_code == 3
    assert len(report.units) == 1
    assert report.findings[-1].code == "RUN003"
    assert "No space left" in report.findings[-1].message
    assert isinstance(heard[-1], events.Failed)


def test_a_report_that_can_not_be_put_in_its_place_is_told_in_the_log(
    live: LiveObjects, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    (run / "report.json" / "older").mkdir(parents=True)
    report = execute(resolve({"out": str(run)}), live=live)
    assert (report.findings[-1].code, report.run.exit_code) == ("RUN003", 3)
    *_, found, failed = read_events(run)
    assert isinstance(found, events.FindingEvent)
    assert found.finding == report.findings[-1]
    assert isinstance(failed, events.Failed)


def test_a_disk_that_a_heartbeat_finds_full_stops_the_run(
    live: LiveObjects, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    append = RunFolder.append

    def full_for_heartbeats(self: RunFolder, event: events.Event) -> None:
        if isinstance(event, events.Heartbeat):
            raise ProbeError("no space left", code="RUN003")
        append(self, event)

    monkeypatch.setattr(RunFolder, "append", full_for_heartbeats)
    monkeypatch.setattr(execution, "HEARTBEAT_SECONDS", 0.001)
    gate = Gate(ControlFile(tmp_path))
    report = execute(resolve({"out": str(tmp_path / "run")}), live=live, gate=gate)
    assert (report.findings[-1].code, report.run.exit_code) == ("RUN003", 3)
    assert report.verdict is None


@pytest.mark.parametrize("nth", [1, 4, 7])
def test_an_interrupted_virtual_step_is_taken_back(live: LiveObjects, nth: int) -> None:
    before = [p.detach().clone() for p in live.model.parameters()]
    seen = 0

    def interrupt(event: events.AnyEvent) -> None:
        nonlocal seen
        if isinstance(event, events.Progress) and event.stage == "realize":
            seen += 1
            if seen == nth:
                raise KeyboardInterrupt

    report = execute(resolve({}), live=live, sinks=[interrupt])
    assert report.run.exit_code == 130
    assert all(torch.equal(p, old) for p, old in zip(live.model.parameters(), before, strict=True))
