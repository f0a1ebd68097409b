"""The run folder: `spec.json`, `events.jsonl`, `report.json`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import msgspec

from probe_engine import events
from probe_engine.errors import ProbeError
from probe_engine.report import Report, encode, to_json
from probe_engine.spec import Resolved


class RunFolder:
    """Writes a run as it happens: one flushed line an event, the report by atomic rename."""

    def __init__(self, path: Path, resolved: Resolved) -> None:
        """Creates the folder.

        Raises:
            ProbeError: it can't be written (RUN003), or holds another run already.
        """
        self.path = path
        try:
            path.mkdir(parents=True, exist_ok=True)
            # First, and only if new: a second run in the same folder would overwrite what tells of the first.
            self._log = (path / "events.jsonl").open("xb", buffering=0)
            (path / "spec.json").write_bytes(to_json(resolved))
        except FileExistsError as error:
            raise ProbeError(
                f"{path}: expected a new folder for this run, it holds a run already"
                if (path / "events.jsonl").exists()
                else f"{path}: expected a folder, it is a file",
                "give another folder",
                code="RUN003",
                commands=("probe-tui CHECKPOINT --out another/folder",),
            ) from error
        except OSError as error:
            raise _not_writable(path, error) from error

    def append(self, event: events.Event) -> None:
        """Appends one event."""
        try:
            self._log.write(events.encode(event))
        except OSError as error:
            raise _not_writable(self.path, error) from error

    def finish(self, report: Report) -> None:
        """Writes `report.json`, whole or not at all. The log stays open, to say so where that fails."""
        partial = self.path / "report.json.partial"
        try:
            partial.write_bytes(encode(report))
            os.replace(partial, self.path / "report.json")
        except OSError as error:
            raise _not_writable(self.path, error) from error

    def close(self) -> None:
        """Nothing more is appended."""
        self._log.close()


def read_spec(path: Path) -> Resolved:
    """The spec of a run folder.

    Raises:
        ProbeError: it is not there or not a spec.
    """
    try:
        return msgspec.json.decode((path / "spec.json").read_bytes(), type=Resolved)
    except (OSError, ValueError, RecursionError) as error:  # what msgspec raises for any bytes at all
        raise ProbeError(
            f"{path}/spec.json: expected the spec of a run: {error}",
            "Give the folder that a run was told to write with --out.",
        ) from error


def read_events(path: Path) -> Iterator[events.AnyEvent]:
    """The recorded events, unknown kinds and a cut last line left out."""
    with (path / "events.jsonl").open("rb") as log:
        for line in log:
            if not line.endswith(b"\n"):
                return
            event = events.decode(line)
            if event is not None:
                yield event


def _not_writable(path: Path, error: OSError) -> ProbeError:
    return ProbeError(
        f"{path}: the run folder can't be written: {error.strerror or error}",
        "give a folder that is writable and has room",
        code="RUN003",
        commands=("probe-tui CHECKPOINT --out /tmp/run",),
    )
