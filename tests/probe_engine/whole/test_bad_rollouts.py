"""Bad rollouts get their code, the facts, a remedy and an exit code; what can be computed is computed."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import checkpoints
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from bad_inputs import PROMPTS, RESPONSES, Case, Copy, Options, cut, pipe

from probe_engine import probe
from probe_engine.report import encode


def trl_rows(edit: Callable[[list[dict[str, Any]]], list[dict[str, Any]]]) -> Callable[[Path], None]:
    def damage(checkpoint: Path) -> None:
        rows = edit(checkpoints.rows(PROMPTS, RESPONSES))
        pq.write_table(pa.Table.from_pylist(rows), checkpoints.completions(checkpoint))

    return damage


def each(**changes: Any) -> Callable[[Path], None]:
    return trl_rows(lambda rows: [row | changes for row in rows])


def native(edit: Callable[[list[bytes]], list[bytes]]) -> Callable[[Path], Options]:
    """Native rollouts, some of their lines edited."""

    def damage(checkpoint: Path) -> Options:
        path = checkpoint.parent / "rollouts.jsonl"
        checkpoints.native(path, checkpoints.rows(PROMPTS, RESPONSES))
        path.write_bytes(b"\n".join(edit(path.read_bytes().splitlines())))
        return {"rollouts": str(path)}

    return damage


def first_line(line: bytes) -> Callable[[Path], Options]:
    return native(lambda lines: [line, *lines[1:]])


def with_ids(token: int) -> Callable[[Path], Options]:
    """The first prompt's responses as token ids, one of which the model does not know."""

    def edit(lines: list[bytes]) -> list[bytes]:
        rows = [json.loads(line) for line in lines]
        for row in rows[:RESPONSES]:
            row["response_tokens"] = [5, token]
        return [json.dumps(row).encode() for row in rows]

    return native(edit)


CASES = {
    "no rollouts": Case(
        lambda c: checkpoints.completions(c).unlink(),
        "ROLL017",
        "fail",
        3,
        ("step 3", "completions_00003.parquet"),
        0,
    ),
    "an empty rollouts file": Case(
        native(lambda _: []), "ROLL013", "fail", 3, ("rollouts.jsonl", "empty"), 0
    ),
    "truncated parquet": Case(
        lambda c: cut(f"../completions/{checkpoints.completions(c).name}")(c),
        "ROLL013",
        "fail",
        3,
        ("expected a parquet file",),
        0,
    ),
    "a pipe for rollouts": Case(
        lambda c: {"rollouts": str(c / "pipe")} if pipe("pipe")(c) is None else None,
        "ROLL013",
        "fail",
        3,
        ("expected a file or a folder", "pipe"),
        0,
    ),
    "one group of one": Case(
        native(lambda lines: lines[RESPONSES - 1 :]),
        "ROLL001",
        "fail",
        1,
        ("1 of 8 prompts", "line 1"),
        PROMPTS - 1,
    ),
    "groups of one": Case(
        trl_rows(lambda rows: rows[::RESPONSES]), "ROLL001", "fail", 3, ("8 of 8 prompts",), 0
    ),
    "equal advantages": Case(
        each(advantage=0.0), "ROLL003", "fail", 1, ("all of 8 prompts",), beside=frozenset({"GRAD005"})
    ),
    "advantages that are not finite": Case(
        each(advantage=float("nan")), "ROLL012", "fail", 3, ("8 of 8 prompts", "advantage nan"), 0
    ),
    "advantages that overflow": Case(
        trl_rows(lambda rows: [row | {"advantage": row["advantage"] * 1e300} for row in rows]),
        "GRAD011",
        "fail",
        1,
        ("finite X, Y, P·Y", "Y: transformer.wte.weight"),
        beside=frozenset({"STAT001"}),
    ),
    "an empty response": Case(
        first_line(b'{"prompt": "abc", "response": "", "reward": 1}'),
        "ROLL013",
        "warn",
        0,
        ("line 1", "empty response"),
    ),
    "an empty list of tokens": Case(
        first_line(b'{"prompt": "abc", "response_tokens": [], "reward": 1}'),
        "ROLL013",
        "warn",
        0,
        ("line 1", "empty response"),
    ),
    "a token outside the vocabulary": Case(
        with_ids(32), "ROLL004", "fail", 1, ("0 to 31", "32 (lines 1, 2, 3)"), PROMPTS - 1
    ),
    "a negative token": Case(with_ids(-1), "ROLL004", "fail", 1, ("0 to 31", "-1"), PROMPTS - 1),
    "a malformed line": Case(
        first_line(b'{"prompt": "abc", '), "ROLL013", "warn", 0, ("line 1", "not valid JSON")
    ),
    "a line that is not UTF-8": Case(
        first_line(b'{"prompt": "\xe9"}'), "ROLL013", "warn", 0, ("line 1", "not UTF-8", "0xe9")
    ),
    "a line that says a thing twice": Case(
        first_line(b'{"prompt": "abc", "prompt": "abd", "response": "a", "reward": 1}'),
        "ROLL013",
        "warn",
        0,
        ("line 1", "'prompt' stands there 2 times"),
    ),
    "a line nested without end": Case(
        first_line(b'{"prompt": ' + b"[" * 100_000), "ROLL013", "warn", 0, ("line 1", "nested too deeply")
    ),
    "more tokens than positions": Case(
        native(lambda lines: [lines[0].replace(b'"response": "', b'"response": "' + b"a" * 64), *lines[1:]]),
        "ROLL013",
        "warn",
        0,
        ("line 1", "the model has 64 positions"),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_it_is_named_and_the_rest_is_computed(name: str, copy: Copy) -> None:
    CASES[name].holds(copy)


def test_an_empty_completion_of_trl_is_an_end_of_text_alone(copy: Copy) -> None:
    """Decoding removed the eos that was sampled: the response is not empty."""
    checkpoint = copy("full")
    trl_rows(lambda rows: [rows[0] | {"completion": ""}, *rows[1:]])(checkpoint)
    report = probe(checkpoint, device="cpu")
    assert report.run.exit_code == 0
    assert [report.units[0].responses[0].length, report.units[0].responses[0].terminated] == [1, True]


def test_a_prompt_that_leaves_no_room_for_a_response_is_not_sampled(copy: Copy, tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.jsonl"
    texts = [*(f"a{c}" for c in "bcdefgh"), "a" * 60]
    prompts.write_text("".join(json.dumps({"prompt": text}) + "\n" for text in texts))
    report = probe(copy("full"), device="cpu", prompts=str(prompts), reward="checkpoints:lengths")
    assert report.run.status == "complete"
    assert len(report.units) == 7
    left_out = next(f for f in report.findings if f.code == "ROLL013")
    assert left_out.status == "warn"
    assert "line 8" in left_out.message
    assert "the model has 64 positions" in left_out.message


def test_a_file_name_that_is_no_unicode_is_probed_all_the_same(copy: Copy, tmp_path: Path) -> None:
    checkpoint = copy("full")
    rollouts = checkpoints.native(tmp_path / os.fsdecode(b"caf\xe9.jsonl"), checkpoints.rows())
    report = probe(checkpoint, device="cpu", rollouts=str(rollouts), out=str(tmp_path / "run"))
    assert report.verdict is not None
    assert (tmp_path / "run" / "report.json").read_bytes() == encode(report)
    assert json.loads(encode(report))["rollouts"]["path"].endswith("caf?.jsonl")
