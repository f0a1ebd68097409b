"""Does gradient flow in this installation? The doctor on the healthy tiny run, nothing injected."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from probe_engine.demo.build import one_thread, quiet
from probe_engine.execution import Sink, execute
from probe_engine.report import Report
from probe_engine.selftest.lab import Lab
from probe_engine.spec import Resolved


def installation(resolved: Resolved, sinks: Sequence[Sink], narrate: Callable[[str], None]) -> Report:
    """The doctor's report on a model that is made for it and is gone afterwards.

    Args:
        resolved: the options; they name no checkpoint.
        sinks: readers of the stream.
        narrate: gets a line now and then while the model is made.
    """
    with tempfile.TemporaryDirectory(prefix="probe-tui-") as folder, one_thread(), quiet():
        checkpoint = Lab(Path(folder) / "lab", narrate).checkpoint()
        spec = msgspec.structs.replace(resolved.spec, checkpoint=str(checkpoint))
        return execute(msgspec.structs.replace(resolved, spec=spec), until="flow", sinks=sinks)
