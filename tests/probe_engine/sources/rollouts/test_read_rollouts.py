"""Formats: each from a file as its own tool writes it."""

from __future__ import annotations

import json

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from probe_engine.errors import ProbeError
from probe_engine.sources.rollouts.read import read

USER = [{"role": "user", "content": "2+2="}]


def write_lines(path, *records):
    path.write_text("".join(json.dumps(r) + "\n" for r in records), "utf-8")
    return path


def write_trl(path, prompts, completions, rewards, advantages, step=3, extra=None):
    """The table as trl 1.16's `GRPOTrainer.log` builds it."""
    table = {
        "step": [step] * len(prompts),
        "prompt": prompts,
        "completion": completions,
        **rewards,
        **(extra or {}),
        "advantage": advantages,
    }
    pd.DataFrame(table).to_parquet(path)
    return path


def test_native(tmp_path):
    full = {
        "prompt_id": 7,
        "prompt": USER,
        "prompt_tokens": [1, 2],
        "response": "4",
        "response_tokens": [3, 4],
        "reward": 1,
        "advantage": -0.5,
        "logprobs": [-1.0, -2],
        "terminated": True,
        "step": 3,
        "temperature": 1.0,
    }
    source = read(write_lines(tmp_path / "r.jsonl", full, {"prompt": "a", "response": "b"}))
    assert source.format == "native (JSON Lines)"
    assert not source.blocks
    one, two = source.rows
    assert one.prompt == tuple(USER)
    assert (one.prompt_tokens, one.response_tokens, one.logprobs) == ((1, 2), (3, 4), (-1.0, -2.0))
    assert (one.reward, one.advantage, one.terminated, one.step, one.group) == (1.0, -0.5, True, 3, "7")
    assert (two.line, two.reward, two.terminated, two.group) == (2, None, None, None)


def test_verl(tmp_path):
    rows = [
        {"input": "2+2=", "output": out, "gts": "4", "score": score, "step": 3, "acc": 1.0, "uid": "u"}
        for out, score in (("4", 1.0), ("", 0.0))
    ]
    source = read(write_lines(tmp_path / "3.jsonl", *rows))
    assert source.format == "verl (JSON Lines)"
    assert [(r.prompt, r.response, r.reward, r.step, r.group) for r in source.rows] == [
        ("2+2=", "4", 1.0, 3, "u"),
        ("2+2=", "", 0.0, 3, "u"),
    ]
    assert [r.terminated for r in source.rows] == [None, True]


def test_open_instruct(tmp_path):
    def row(**changes):
        return {
            "step": 3,
            "sample_idx": 0,
            "prompt_idx": 5,
            "prompt_tokens": [1, 2],
            "response_tokens": [3, 4],
            "reward": 10.0,
            "advantage": 0.5,
            "finish_reason": "stop",
            "dataset": "gsm8k",
            "ground_truth": [9],
            "request_info": {"num_calls": 0},
            "logprobs": [-0.1, -0.2],
        } | changes

    tool = row(request_info={"num_calls": 2})
    source = read(write_lines(tmp_path / "x.jsonl", row(), row(finish_reason="length"), tool))
    assert source.format == "open-instruct (JSON Lines)"
    assert [(r.terminated, r.group, r.advantage) for r in source.rows] == [
        (True, "3/5", 0.5),
        (False, "3/5", 0.5),
    ]
    assert [(b.line, "tool output" in b.reason) for b in source.bad] == [(3, True)]


def test_trl_strings_with_several_rewards_and_extras(tmp_path):
    nan = float("nan")
    path = write_trl(
        tmp_path / "completions_00003.parquet",
        ["a", "a", "a"],
        ["x", "", "z"],
        {"correct": [1.0, 0.0, nan], "format": [0.5, nan, nan]},
        [0.7, -0.7, 0.0],
        extra={"answer": ["4", "5", "6"], "confidence": [0.9, 0.8, 0.7]},
    )
    source = read(path)
    assert source.format == "TRL completions (parquet)"
    assert source.blocks
    assert source.notes == ("reward = correct + format, each with weight 1",)
    assert [(r.prompt, r.response, r.reward, r.advantage, r.step) for r in source.rows] == [
        ("a", "x", 1.5, 0.7, 3),
        ("a", "", 0.0, -0.7, 3),
        ("a", "z", None, 0.0, 3),
    ]
    assert [r.terminated for r in source.rows] == [None, True, None], "a stripped eos is all that '' was"


@pytest.mark.parametrize("as_text", [False, True])
def test_trl_messages(tmp_path, as_text):
    answer = [{"role": "assistant", "content": "4"}]
    tool = [{"role": "assistant", "content": "", "tool_calls": "f()"}, {"role": "tool", "content": "4"}]
    wrap = json.dumps if as_text else list
    path = write_trl(
        tmp_path / "c.parquet", [wrap(USER)] * 2, [wrap(answer), wrap(tool)], {"r": [1.0, 0.0]}, [1.0, -1.0]
    )
    source = read(path)
    assert [(r.prompt, r.response) for r in source.rows] == [(tuple(USER), "4")]
    assert [b.line for b in source.bad] == [2]
    assert "one assistant message" in source.bad[0].reason


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"prompt": "a", "response": ', "not valid JSON"),
        (b"[1, 2]", "expected a JSON object, got list"),
        (b'{"prompt": "a"}', "expected a response or its tokens"),
        (b'{"response": "a"}', "expected a prompt or its tokens"),
        (b'{"prompt": 3, "response": "a"}', "prompt: expected a string or a list of messages, got int 3"),
        (b'{"prompt": [{"content": "x"}], "response": "a"}', "expected messages"),
        (b'{"prompt": "a", "response": ""}', "empty response"),
        (b'{"prompt": "a", "response_tokens": []}', "empty response"),
        (b'{"prompt": "a", "response_tokens": [1.5]}', "expected 32-bit token ids, got 1.5"),
        (b'{"prompt": "a", "response_tokens": [true]}', "expected 32-bit token ids, got True"),
        (b'{"prompt": "a", "response_tokens": [9999999999]}', "expected 32-bit token ids"),
        (b'{"prompt": "a", "response_tokens": [1, 2], "logprobs": [0]}', "expected 2 logprobs"),
        (b'{"prompt": "a", "response": "b", "reward": "high"}', "reward: expected a number, got str"),
        (b'{"prompt": "a", "response": "b", "terminated": 1}', "terminated: expected true or false"),
        (b'{"prompt": "a", "response": "b", "step": -1}', "step: expected a step number"),
        (b'{"prompt": "a\xff", "response": "b"}', "not UTF-8: byte 0xff at position 13"),
        (b'{"prompt": "\\ud800", "response": "b"}', "lone surrogate"),
        (b'{"prompt": [{"role": "user", "content": "\\ud800"}], "response": "b"}', "lone surrogate"),
        (b"[" * 100_000, "not valid JSON"),
        (b'{"reward": 1' + b"0" * 5000 + b"}", "not valid JSON"),
    ],
)
def test_a_bad_line_is_named_and_the_rest_goes_on(tmp_path, line, reason):
    good = b'{"prompt": "a", "response": "b"}\n'
    path = tmp_path / "r.jsonl"
    path.write_bytes(good + b"\r\n" + line + b"\n" + good)
    source = read(path)
    assert [r.line for r in source.rows] == [1, 4]
    assert [b.line for b in source.bad] == [3]
    assert reason in source.bad[0].reason


def test_bom_crlf_and_a_last_line_without_newline_are_read(tmp_path):
    path = tmp_path / "r.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"prompt": "a", "response": "b"}\r\n{"prompt": "a", "response": "c"}')
    assert [r.response for r in read(path).rows] == ["b", "c"]


@pytest.mark.parametrize("content", [b"", b"\n \n"])
def test_an_empty_file_is_an_error(tmp_path, content):
    path = tmp_path / "r.jsonl"
    path.write_bytes(content)
    with pytest.raises(ProbeError, match="got an empty file") as error:
        read(path)
    assert error.value.code == "ROLL013"


def test_a_cut_parquet_file_is_an_error(tmp_path):
    path = write_trl(tmp_path / "c.parquet", ["a"], ["b"], {"r": [1.0]}, [0.0])
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ProbeError, match="can't be read"):
        read(path)


def test_a_missing_file_is_an_error(tmp_path):
    with pytest.raises(ProbeError, match="No such file"):
        read(tmp_path / "none.jsonl")


def parquet_bytes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("good")
    return write_trl(folder / "c.parquet", ["a"] * 4, ["b"] * 4, {"r": [1.0] * 4}, [0.0] * 4).read_bytes()


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(content=st.binary(max_size=300), parquet=st.booleans())
def test_random_bytes_give_rows_or_a_probe_error(tmp_path, content, parquet):
    path = tmp_path / "fuzz"
    path.write_bytes((b"PAR1" if parquet else b"") + content + (b"PAR1" if parquet else b""))
    try:
        source = read(path)
    except ProbeError:
        return
    assert len(source.rows) + len(source.bad) > 0


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_mutated_parquet_gives_rows_or_a_probe_error(tmp_path, tmp_path_factory, data):
    content = bytearray(parquet_bytes(tmp_path_factory))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / "fuzz.parquet"
    path.write_bytes(bytes(content))
    try:
        source = read(path)
    except ProbeError:
        return
    assert len(source.rows) + len(source.bad) > 0


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
KEYS = [
    *("prompt", "prompt_id", "prompt_tokens", "response", "response_tokens"),
    *("reward", "advantage", "logprobs", "terminated", "step"),
    *("input", "output", "score", "uid", "finish_reason", "prompt_idx", "request_info"),
]


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(records=st.lists(st.dictionaries(st.sampled_from(KEYS), json_values), min_size=1, max_size=5))
def test_any_json_gives_every_row_once(tmp_path, records):
    source = read(write_lines(tmp_path / "fuzz.jsonl", *records))
    lines = sorted([r.line for r in source.rows] + [b.line for b in source.bad])
    assert lines == list(range(1, len(records) + 1))
