"""The pages in docs/ say what the code says: findings, options, keys, events, rooms, links, examples."""

from __future__ import annotations

import re
import runpy
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import checkpoints
import msgspec
import pytest
import tiny
from typer.main import get_command

from probe_engine import catalogue, events, probe
from probe_engine.report import encode, json_schema
from probe_engine.sources.rollouts.read import read
from probe_tui.cli import app

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted([*DOCS.rglob("*.md"), ROOT / "README.md"])
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


def section(page: str, heading: str) -> str:
    """What stands under a heading, up to the next one."""
    found = re.search(rf"^#+ {re.escape(heading)}\n(.*?)(?=^#+ |\Z)", (DOCS / page).read_text(), re.M | re.S)
    assert found, f"{page} has no heading {heading!r}"
    return found[1]


def block(text: str, language: str) -> str:
    """The one fenced block of a language."""
    (found,) = (body for fence, body in FENCE.findall(text) if fence == language)
    return str(found)


def first_column(text: str) -> list[list[str]]:
    """The code words in the first cell of each row that has some."""
    cells = [re.findall(r"`([^`]+)`", line.split("|")[1]) for line in text.splitlines() if line[:1] == "|"]
    return [words for words in cells if words]


def test_findings_are_what_the_script_writes_now() -> None:
    pages: Callable[[], dict[str, str]] = runpy.run_path(str(DOCS / "write_findings.py"))["pages"]
    committed = {path.name: path.read_text("utf-8") for path in (DOCS / "findings").iterdir()}
    assert committed == pages(), "run docs/write_findings.py"


def test_every_finding_has_its_section() -> None:
    codes = [c for page in (DOCS / "findings").glob("*.md") for c in headings(page) if c[-1:].isdigit()]
    assert sorted(codes) == sorted(code.lower() for code in catalogue.ENTRIES)


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_links_lead_somewhere(page: Path) -> None:
    text = FENCE.sub("", page.read_text("utf-8"))
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"\w+://", link):
            continue
        place, _, anchor = link.partition("#")
        target = (page.parent / place).resolve() if place else page
        assert target.exists(), link
        assert not anchor or anchor in headings(target), link


def headings(page: Path) -> list[str]:
    """A page's anchors, as they are made from its headings on the web."""
    lines = re.findall(r"^#+ (.*)$", FENCE.sub("", page.read_text("utf-8")), re.M)
    return [re.sub(r"[^\w\- ]", "", line).strip().lower().replace(" ", "-") for line in lines]


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_options_exist(page: Path) -> None:
    command = get_command(app)
    known = {option for parameter in command.params for option in parameter.opts}
    known |= set(command.context_settings["help_option_names"])
    known |= options((ROOT / "probe_engine/__main__.py").read_text("utf-8"))  # the worker's own
    assert options(page.read_text("utf-8")) <= known


def options(text: str) -> set[str]:
    return set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", text))


def test_report_keys_are_those_of_the_schema() -> None:
    keys = [word for words in first_column(section_after("report.md", "Keys")) for word in words]
    assert len(keys) == len(set(keys))
    assert set(keys) == set(schema_keys())


def section_after(page: str, heading: str) -> str:
    """All that stands after a heading."""
    return (DOCS / page).read_text("utf-8").partition(f"\n## {heading}\n")[2]


def schema_keys() -> Iterator[str]:
    """The schema's keys as docs/report.md writes them: `a.b`, `a[].b`, `a.*.b`."""
    schema = json_schema()

    def below(node: dict[str, Any], at: str) -> Iterator[str]:
        if "$ref" in node:
            yield from below(schema["$defs"][node["$ref"].rpartition("/")[2]], at)
        for alternative in node.get("anyOf", ()):
            yield from below(alternative, at)
        for word, mark in (("items", "[]"), ("additionalProperties", ".*")):
            if isinstance(node.get(word), dict):
                yield from below(node[word], at + mark)
        for name, child in node.get("properties", {}).items():
            key = f"{at}.{name}" if at else name
            yield key
            yield from below(child, key)

    return below(schema, "")


def test_events_are_those_of_the_stream() -> None:
    stamps = {field.name for field in msgspec.structs.fields(events.Event)}
    kinds = {
        kind.__struct_config__.tag: set(kind.__struct_fields__) - stamps for kind in events.AnyEvent.__args__
    }
    rows = [line.split("|") for line in section("architecture.md", "The stream").splitlines() if "|" in line]
    told = {re.sub(r"\W", "", row[1]): set(re.findall(r"`(\w+)`", row[2])) for row in rows if "`" in row[1]}
    assert told == kinds


def test_rooms_are_those_of_the_import_contract() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]
    layers = next(c["layers"] for c in contracts["contracts"] if c["type"] == "layers")
    rooms = [[room.removeprefix("probe_engine.") for room in layer.split(" | ")] for layer in layers]
    assert first_column(section("architecture.md", "Who may import whom")) == rooms


def test_the_native_example_is_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "rollouts.jsonl"
    path.write_text(block(section("formats.md", "Native format"), "jsonl"), "utf-8")
    source = read(path)
    assert source.format == "native (JSON Lines)"
    assert not source.bad
    assert len(source.rows) == 4


def test_the_readme_s_python_example_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = checkpoints.run(tmp_path)
    checkpoint.rename(checkpoint.with_name("checkpoint-200"))
    monkeypatch.chdir(checkpoint.parent)
    model = tiny.with_lora(tiny.model())
    names = {"model": model, "optimizer": tiny.optimizer(model)}
    exec(block((ROOT / "README.md").read_text("utf-8"), "python"), names)
    report = names["report"]
    assert report.run.exit_code == 0
    assert capsys.readouterr().out == f"{report.verdict.reason}\n"


def test_the_python_example_reads_a_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tiny.with_lora(tiny.model())
    report = probe(model, optimizer=tiny.optimizer(model), batch=tiny.batch())
    (tmp_path / "report.json").write_bytes(encode(report))
    monkeypatch.chdir(tmp_path)
    exec(block(section("report.md", "An example"), "python"), {})
    said = capsys.readouterr().out
    assert "95% interval" in said
    assert report.verdict is not None
    assert f"{report.verdict.status}: {report.verdict.reason}" in said
    assert all(f.code in said for f in report.findings if f.status in ("warn", "fail"))
