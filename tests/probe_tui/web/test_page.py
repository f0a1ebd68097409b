"""The exported page: one file, everything escaped, nothing loaded, nothing run but its own script."""

from __future__ import annotations

import base64
import hashlib
from html.parser import HTMLParser
from typing import Any

import pytest
import unit_states
from finished_states import CHECKPOINT, VERDICT, found, report, state
from msgspec.structs import replace

from probe_engine.events import Failed
from probe_engine.report import Estimates, Remedy, RunInfo, VerdictRow
from probe_engine.spec import Setting
from probe_tui.glossary import GLOSSARY
from probe_tui.state import ScreenState
from probe_tui.web.page import page

VOID = {"meta", "br"}
HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "'onmouseover='alert(1)",
    "</pre></details><iframe src=javascript:alert(1)>",
    "{{ 7 * 7 }} {% raw %}",
    "&lt;b&gt; ]]> <!-- -->",
    "</style></title></textarea>",
)


class Parsed(HTMLParser):
    """Tags, attributes and text; unbalanced tags are an error."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[tuple[str, str]] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append((self.open[-1] if self.open else "", data))

    @property
    def text(self) -> str:
        return " ".join(" ".join(data for tag, data in self.words if tag not in ("style", "script")).split())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]

    def inside(self, tag: str) -> list[str]:
        return [data for name, data in self.words if name == tag]


def test_headline_verdict_findings_plots_numbers_and_units() -> None:
    urgent = found("STAT001", "fail")
    shown = Parsed(page(state(findings=[found("GRAD001", "ok"), found("OPT004", "warn"), urgent])))
    for words in (
        "checkpoint-30 · probe-tui",
        "δH₁ = -0.00125 nats per token slot",
        "95% [-0.0016, -0.0009]. Entropy falls: the whole interval lies below 0.",
        "✓ agree : the measured change bears the prediction out",
        VERDICT.reason,
        "✗ fail STAT001 title of STAT001 message of STAT001 What to do: remedy of STAT001",
        "probe-tui --fix STAT001",
        "1 more, none of which asks for attention",
        "28/28 non-None",
        ".estimates.u_statistic.se_jackknife",
        "Sort the digits of",
        "probe-tui runs/checkpoint-30 --json | jq .",
    ):
        assert words in shown.text
    assert shown.text.index("STAT001") < shown.text.index("OPT004") < shown.text.index("GRAD001")
    assert [svg["aria-label"] for svg in shown.all("svg")] == [
        "Predicted δH₁ and measured ΔĤ, 95% intervals",
        "Contributions of the prompts in E, +η·s_n",
        "Contributions of all prompts, −η·r_n",
        "Log-weights S⁺ − S, held-out pairing",
    ]
    assert (
        len(shown.all("tr")) == 1 + 6 + 18 + 1 + 6 + 1
    )  # finding, realized, numbers, units and their headings


def test_the_page_needs_nothing_else_and_runs_only_its_own_script() -> None:
    shown = Parsed(page(state()))
    loading = {"src", "srcset", "data", "action", "style"}
    for tag, attributes in shown.tags:
        assert tag not in ("link", "iframe", "object", "embed", "img", "base", "form")
        assert not loading & set(attributes)
        assert not [name for name in attributes if name.startswith("on")]
    (policy,) = (m["content"] for m in shown.all("meta") if m.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert policy.startswith("default-src 'none'; ")
    for tag in ("style", "script"):
        (text,) = shown.inside(tag)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
        assert "http" not in text
    assert "@import" not in shown.inside("style")[0]
    assert "url(" not in shown.inside("style")[0]


def test_light_and_dark_and_phones_are_thought_of() -> None:
    shown = Parsed(page(state()))
    (style,) = shown.inside("style")
    assert "prefers-color-scheme: dark" in style
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in shown.all("meta")


@pytest.mark.parametrize("hostile", HOSTILE)
def test_whatever_others_wrote_stays_text(hostile: str) -> None:
    long = hostile + " and more words than one sees before opening it" * 3

    def with_words(words: str, long_words: str) -> ScreenState:
        finding = found("STAT001", "fail", evidence={})
        return ScreenState(
            report=report(
                units=[unit_states.unit(0, prompt=words), unit_states.unit(1, prompt=long_words)],
                findings=[
                    replace(
                        finding,
                        title=words,
                        message=words,
                        reference=f"https://{words}",
                        remedy=Remedy(text=words, commands=[words]),
                    ),
                    replace(finding, status="ok", message=words),
                ],
                checkpoint=replace(CHECKPOINT, path=words, base=words),
                verdict=replace(VERDICT, reason=words),
                config={"checkpoint": Setting(words, "flag")},
            ),
            ended=Failed(message=words, remedy=words, run=RunInfo()),
        )

    shown, harmless = Parsed(page(with_words(hostile, long))), Parsed(page(with_words("x", "x" * 200)))
    assert [tag for tag, _ in shown.tags] == [tag for tag, _ in harmless.tags]
    assert [set(attributes) for _, attributes in shown.tags] == [set(a) for _, a in harmless.tags]
    assert hostile in shown.inside("bdi")
    assert long in shown.inside("bdi")
    assert hostile in [cell.get("data-value") for cell in shown.all("td")]


def test_a_reference_that_is_no_web_address_is_no_link() -> None:
    def links(reference: str) -> list[dict[str, str | None]]:
        return Parsed(page(state(findings=[replace(found("X001", "warn"), reference=reference)]))).all("a")

    assert links("javascript:alert(1)") == []
    assert links("") == []
    assert links("https://example.org/1") == [{"rel": "noreferrer", "href": "https://example.org/1"}]


def test_units_stand_in_the_order_of_what_they_move_with_their_share() -> None:
    units = [unit_states.unit(n, r=r) for n, r in enumerate((1.0, None, -4.0, 2.0))]
    html = page(state(units=units))
    places = [html.index(f"<code>u{n}</code>") for n in (2, 3, 0, 1)]
    assert places == sorted(places)
    cells = [c["data-value"] for c in Parsed(html).all("td") if "data-value" in c and c["class"] != "prompt"]
    per_unit = [cells[i : i + 5] for i in range(0, len(cells), 5)]
    assert per_unit == [
        ["-4.0", "4.0", "", "0.5", "0.5"],
        ["2.0", "-2.0", "", "0.5", "0.5"],
        ["1.0", "-1.0", "", "0.5", "0.5"],
        ["", "", "", "0.5", "0.5"],
    ]
    said = Parsed(html).text
    for words in ("−η·r_n, nats/slot", "+η·s_n, nats/slot", "SD", GLOSSARY["−η·r_n"], GLOSSARY["E, U"]):
        assert words in said


def test_a_run_that_stopped_says_why() -> None:
    run = RunInfo(folder=None, status="partial", exit_code=4)
    stopped = ScreenState(
        report=report(run=run), ended=Failed(message="out of memory", remedy="a smaller batch", run=run)
    )
    text = Parsed(page(stopped)).text
    assert "✗ stopped out of memory What to do: a smaller batch" in text
    assert "! partial" not in text


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"run": RunInfo()}, "! partial The run had not ended"),
        ({"estimates": Estimates()}, "No estimate: the run did not reach one."),
        ({"findings": [found("GRAD001", "ok")]}, "Nothing failed or warned."),
    ],
)
def test_what_is_missing_is_said(changes: dict[str, Any], words: str) -> None:
    assert words in Parsed(page(state(**changes))).text


def test_an_empty_report_is_a_page_too() -> None:
    shown = Parsed(page(ScreenState()))
    assert shown.all("svg") == []
    assert "No estimate" in shown.text


@pytest.mark.parametrize(
    ("status", "word", "style"),
    [("disagree", "✗ disagree", "fail"), ("inconclusive", "? inconclusive", "warn")],
)
def test_the_verdict_is_a_glyph_and_a_word_besides_a_colour(status: Any, word: str, style: str) -> None:
    row = VerdictRow(step="preconditioned", pairing="same_batch", estimator="per_decision")
    shown = Parsed(page(state(verdict=replace(VERDICT, status=status, row=row))))
    assert word in shown.text
    assert "same-batch pairing, per-decision" in shown.text
    assert f"box {style}" in [div.get("class") for div in shown.all("div")]
