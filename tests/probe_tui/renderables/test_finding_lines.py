"""Findings as rows, in full, by family."""

from __future__ import annotations

from typing import Any

import pytest

from probe_engine.catalogue import ENTRIES
from probe_engine.report import Finding, Remedy, finding
from probe_tui.renderables.findings import (
    FAMILIES,
    Attention,
    attention,
    causes_first,
    finding_detail,
    finding_row,
    grouped,
)
from probe_tui.renderables.palette import DEFAULT


def made(code: str = "GRAD010", status: Any = "fail", message: str = "6 missing", **more: Any) -> Finding:
    return Finding(code=code, title="registry / μ_Y", status=status, message=message, **more)


def test_glyph_word_code_title_and_message() -> None:
    assert finding_row(made(), width=80, palette=DEFAULT).plain == (
        "✗ fail  GRAD010 registry / μ_Y         6 missing"
    )
    assert finding_row(made(), width=40, palette=DEFAULT).plain == "✗ fail  GRAD010 registry / μ_Y 6 missing"


def test_long_messages_end_in_an_ellipsis_and_stay_on_their_row() -> None:
    row = finding_row(made(message="414 matched,\n6 missing"), width=44, palette=DEFAULT)
    assert row.plain == "✗ fail  GRAD010 registry / μ_Y 414 matched,…"


@pytest.mark.parametrize("status", ["ok", "info", "warn", "fail", "crash", "skip"])
def test_every_status_has_its_glyph_and_its_word(status: str) -> None:
    text = finding_row(made(status=status), width=80, palette=DEFAULT).plain
    assert text.split()[1] == status


def test_the_detail_says_everything() -> None:
    f = made(
        message="expected the same objects, saw 6 others: the buffers are older than the wrapping",
        value=6.0,
        threshold=0.0,
        evidence={
            "missing": ["a.lora_A", "b.lora_A"],
            "rank": 0,
            "ratio": 0.25,
            "by": {"id": None},
            "ok": True,
        },
        remedy=Remedy(text="Build once, after wrapping.", commands=["probe-tui CHECKPOINT --doctor"]),
        reference="docs/findings/gradient.md",
        duration_ms=1.25,
    )
    assert [row.plain for row in finding_detail(f, width=46, palette=DEFAULT)] == [
        "✗ fail GRAD010 registry / μ_Y",
        "expected the same objects, saw 6 others: the",
        "buffers are older than the wrapping",
        "remedy: Build once, after wrapping.",
        "$ probe-tui CHECKPOINT --doctor",
        "seen: 6 · threshold 0",
        "missing: a.lora_A, b.lora_A",
        "rank: 0",
        "ratio: 0.25",
        "by: id —",
        "ok: True",
        "see docs/findings/gradient.md",
        "took 1.25 ms",
    ]


def test_a_snippet_keeps_its_lines() -> None:
    f = made(evidence={"snippet": "module = model\nprint(module)"})
    rows = [row.plain for row in finding_detail(f, width=46, palette=DEFAULT)]
    assert rows[2:] == ["snippet:", "  module = model", "  print(module)"]


def test_a_bare_finding_has_no_empty_labels() -> None:
    detail = finding_detail(made(status="ok", message="all well"), width=46, palette=DEFAULT)
    assert [row.plain for row in detail] == ["✓ ok GRAD010 registry / μ_Y", "all well"]


def test_families_come_in_the_pipelines_order_under_plain_names() -> None:
    codes = ["GRAD001", "NEW001", "CKPT001", "GRAD002", "OPT001"]
    groups = grouped(made(code) for code in codes)
    assert [(name, [f.code for f in members]) for name, members in groups] == [
        ("Checkpoint", ["CKPT001"]),
        ("Optimizer state", ["OPT001"]),
        ("Gradient flow", ["GRAD001", "GRAD002"]),
        ("NEW", ["NEW001"]),
    ]


def test_every_family_of_the_catalogue_has_a_name() -> None:
    assert {entry.family for entry in ENTRIES.values()} <= set(FAMILIES)


def test_attention_counts_what_fails_and_what_warns() -> None:
    counted = attention(made(status=s) for s in ("ok", "warn", "crash", "fail", "skip", "info"))
    assert counted == Attention(fail=2, warn=1)
    assert str(counted) == "✗2 !1"
    assert str(attention([made(status="ok")])) == ""


def test_attention_counts_causes_not_what_follows_from_them() -> None:
    findings = [made("GRAD013"), made("GRAD006", cause="GRAD013"), made("OPT004", "warn", cause="OPT009")]
    assert attention(findings) == Attention(fail=1, warn=1)


def test_every_finding_of_the_catalogue_fits_a_small_screen() -> None:
    for code in ENTRIES:
        f = finding(code, "fail", ENTRIES[code].fault)
        assert finding_row(f, width=60, palette=DEFAULT).cell_len <= 60
        assert all(row.cell_len <= 60 for row in finding_detail(f, width=60, palette=DEFAULT))


def test_consequences_stand_indented_under_their_cause_and_others_by_severity() -> None:
    findings = [
        made("OPT009", "warn"),
        made("GRAD013"),
        made("OPT004", "warn", cause="OPT009"),
        made("GRAD006", cause="GRAD013"),
        made("GRAD008", cause="GRAD013"),
        made("GRAD001", "ok"),
        made("GRAD011", cause="CKPT006"),
    ]
    assert [(f.code, under) for f, under in causes_first(findings)] == [
        ("GRAD013", False),
        ("GRAD006", True),
        ("GRAD008", True),
        ("GRAD011", False),  # its cause is not on the list: it stands for itself
        ("OPT009", False),
        ("OPT004", True),
    ]
    row = finding_row(findings[3], width=80, palette=DEFAULT, under_cause=True)
    assert row.plain.startswith("  ↳ ✗ fail  GRAD006 ")
    assert "follows from GRAD013" in [r.plain for r in finding_detail(findings[3], width=46, palette=DEFAULT)]
