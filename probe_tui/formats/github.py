"""Findings as workflow commands of GitHub Actions: annotations on the run's page."""

from __future__ import annotations

from probe_engine.report import Finding, Report
from probe_engine.spec import RunSpec
from probe_tui.renderables.findings import causes_first

COMMAND = {"warn": "warning", "fail": "error", "crash": "error"}


def github(report: Report, spec: RunSpec) -> str:
    """A line for each root cause that `--select` and `--ignore` leave; consequences go without."""
    causes = [found for found, follows in causes_first(report.findings) if not follows]
    return "".join(_line(found) for found in causes if spec.chosen(found.code))


def _line(found: Finding) -> str:
    text = "\n".join(filter(None, (found.message, found.remedy.text, *found.remedy.commands)))
    return f"::{COMMAND[found.status]} title={_property(f'{found.code} {found.title}')}::{_data(text)}\n"


def _data(text: str) -> str:
    """Escaped as the runner's toolkit does it."""
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
