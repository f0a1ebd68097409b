"""The engine: a checkpoint and its rollouts in, a stream of typed events and a report out.

`doctor` asks whether gradient flows, `probe` what the next step does to the policy's entropy. Both take a
checkpoint's path or a live model, change nothing, and return a `Report`: `print(report)` says what is wrong,
what to do about it and the verdict; its fields are the keys of report.json (docs/report.md).

Importing this package loads no torch; the functions do when they are first called.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from probe_engine.api import doctor, probe
    from probe_engine.report import Report

__all__ = ["Report", "__version__", "doctor", "probe"]


def __getattr__(name: str) -> Any:
    if name in ("doctor", "probe"):
        from probe_engine import api

        return getattr(api, name)
    if name == "Report":
        from probe_engine.report import Report

        return Report
    raise AttributeError(f"module 'probe_engine' has no attribute {name!r}")
