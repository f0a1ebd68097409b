"""Findings as JUnit XML: a test case each, a suite for each family, for the test pages of CI systems."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from xml.etree import ElementTree as xml

from probe_engine.report import Finding, Report
from probe_engine.spec import RunSpec
from probe_tui.renderables.findings import grouped

UNPRINTABLE = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML 1.0 has no way to hold."""


def junit(report: Report, spec: RunSpec) -> str:
    """A finding that counts for the exit code is a failure, a crash an error, a consequence is skipped."""
    root = xml.Element("testsuites", name="probe-tui")
    for family, members in grouped(report.findings):
        root.append(_suite(family, members, spec))
    xml.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + xml.tostring(root, encoding="unicode") + "\n"


def _suite(family: str, members: Sequence[Finding], spec: RunSpec) -> xml.Element:
    seen = Counter[str]()
    cases = []
    for found in members:
        seen[found.code] += 1
        cases.append(_case(found, spec, f" ({seen[found.code]})" if seen[found.code] > 1 else ""))
    outcomes = [child.tag for case in cases for child in case]
    suite = xml.Element(
        "testsuite",
        name=family,
        tests=str(len(cases)),
        failures=str(outcomes.count("failure")),
        errors=str(outcomes.count("error")),
        skipped=str(outcomes.count("skipped")),
        time=_seconds(sum(f.duration_ms or 0.0 for f in members)),
    )
    suite.extend(cases)
    return suite


def _case(found: Finding, spec: RunSpec, again: str) -> xml.Element:
    family = found.code.rstrip("0123456789")
    case = xml.Element(
        "testcase",
        classname=f"probe-tui.{family}",
        name=_text(f"{found.code} {found.title}{again}"),
        time=_seconds(found.duration_ms or 0.0),
    )
    message = _text(found.message)
    if found.cause:
        xml.SubElement(case, "skipped", message=f"follows from {found.cause}: {message}")
    elif found.status == "skip":
        xml.SubElement(case, "skipped", message=message)
    elif spec.counts(found.code, found.status):
        kind = "error" if found.status == "crash" else "failure"
        outcome = xml.SubElement(case, kind, message=message, type=found.status)
        outcome.text = _text("\n".join(filter(None, (found.remedy.text, *found.remedy.commands))))
    else:
        xml.SubElement(case, "system-out").text = f"{found.status}: {message}"
    return case


def _seconds(milliseconds: float) -> str:
    return f"{milliseconds / 1000:.3f}"


def _text(text: str) -> str:
    return UNPRINTABLE.sub("?", text)
