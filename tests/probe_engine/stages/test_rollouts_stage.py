"""Rollouts to a batch, from every source; and every bad input that belongs here."""

from __future__ import annotations

import json
import string
import sys
from dataclasses import replace

import msgspec
import pandas as pd
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer
from tokenizers.decoders import Fuse
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Split
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from probe_engine.errors import ProbeError
from probe_engine.events import FindingEvent, Part, Progress, encode
from probe_engine.registry import ParameterRegistry
from probe_engine.spec import RunSpec
from probe_engine.stages.rollouts import live_rollouts, rollouts
from probe_engine.types import OptimizerState, Policy

EOS = 1


@pytest.fixture(scope="session")
def policy():
    vocabulary = {t: i for i, t in enumerate(["<pad>", "</s>", "<unk>", *string.printable])}
    characters = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    characters.pre_tokenizer = Split(Regex(r"[\s\S]"), behavior="isolated")
    characters.decoder = Fuse()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=characters,
        eos_token="</s>",
        unk_token="<unk>",
        chat_template="{% for m in messages %}{{ m['role'][0] }}:{{ m['content'] }}{% endfor %}|",
    )
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        num_key_value_heads=1,
        eos_token_id=EOS,
    )
    model = LlamaForCausalLM(config).eval()
    state = OptimizerState("AdamW", 1e-3, "optimizer.pt", (0.9, 0.999), 1e-8, 0.0, 7, {})
    trainer = {"max_completion_length": 4, "num_generations": 2, "scale_rewards": "none", "loss_type": "dapo"}
    return Policy(model, ParameterRegistry.of(model).trainable, tokenizer, state, trainer, step=7)


def run(stage):
    """The batch, the findings by code, and all events."""
    events = []
    try:
        while True:
            events.append(next(stage))
    except StopIteration as stop:
        batch = stop.value
    findings = {e.finding.code: e.finding for e in events if isinstance(e, FindingEvent)}
    assert all(encode(e) for e in events)
    return batch, findings, events


def info_of(events):
    (part,) = [e for e in events if isinstance(e, Part)]
    return part.rollouts


def good_rows(prompts=8, step=8):
    return [
        {"prompt": f"p{n}", "response": "ab"[: g + 1], "reward": float(g), "step": step}
        for n in range(prompts)
        for g in range(2)
    ]


def write(path, rows):
    path.write_bytes(b"".join(r if isinstance(r, bytes) else json.dumps(r).encode() + b"\n" for r in rows))
    return str(path)


def codes(findings, *statuses):
    return {code for code, f in findings.items() if f.status in statuses}


def test_trl_table_beside_the_checkpoint(tmp_path, policy):
    checkpoint = tmp_path / "checkpoint-7"
    checkpoint.mkdir()
    (tmp_path / "completions").mkdir()
    user = [[{"role": "user", "content": str(n)}] for n in range(8) for _ in range(2)]
    said = [[{"role": "assistant", "content": "abcdef"[:k]}] for _ in range(8) for k in (2, 4)]
    pd.DataFrame(
        {
            "step": [8] * 16,
            "prompt": user,
            "completion": said,
            "correct": [0.0, 1.0] * 8,
            "advantage": [-0.5, 0.5] * 8,
        }
    ).to_parquet(tmp_path / "completions" / "completions_00008.parquet")
    batch, findings, events = run(rollouts(RunSpec(checkpoint=str(checkpoint)), policy))
    assert codes(findings, "warn", "fail", "crash") == set()
    assert codes(findings, "info") == {"ROLL005", "ROLL006", "ROLL011"}
    assert set(findings) == {f"ROLL{n:03}" for n in (1, 2, 3, 4, 5, 6, 9, 10, 11, 12, 13, 14, 15, 16, 17)}
    info = info_of(events)
    assert msgspec.structs.asdict(info) | {"path": ""} == {
        "path": "",
        "format": "TRL completions (parquet)",
        "prompts": 8,
        "responses": 16,
        "tokens": 8 * (3 + 4),
        "tokens_from": "text",
        "max_completion_length": 4,
        "max_completion_length_origin": "training_args.bin",
        "loss_type": "dapo",
        "advantages_from": "logged",
        "step": 8,
        "sampled_here": False,
    }
    group = batch.groups[0]
    assert policy.tokenizer.decode(group.tokens) == "u:0|"
    assert [(r.terminated, r.tokens[-1] == EOS) for r in group.responses] == [(True, True), (False, False)]
    assert sum(u.role == "E" for u in batch.units) == 4


def test_a_stale_table_is_never_taken_silently(tmp_path, policy):
    checkpoint = tmp_path / "checkpoint-7"
    checkpoint.mkdir()
    frame = pd.DataFrame(good_rows(step=7)).rename(columns={"response": "completion", "reward": "r"})
    (tmp_path / "completions").mkdir()
    frame.to_parquet(tmp_path / "completions" / "completions_00007.parquet")
    _, findings, _ = run(rollouts(RunSpec(checkpoint=str(checkpoint)), policy))
    assert findings["ROLL017"].status == "warn"
    assert "step 7" in findings["ROLL017"].message


def test_native_rows_and_options(tmp_path, policy):
    path = write(tmp_path / "r.jsonl", good_rows())
    spec = RunSpec(rollouts=path, weighting="sequence", max_prompts=7, units="block", block_size=3, seed=4)
    plain = replace(policy, trainer={})
    batch, findings, events = run(rollouts(spec, plain))
    info = info_of(events)
    assert (len(batch.units), [len(u.groups) for u in batch.units]) == (3, [3, 3, 1])
    assert (batch.weighting, batch.loss_type) == ("sequence", "dr_grpo")
    assert (info.advantages_from, info.prompts) == ("rewards, scale_rewards=group (default)", 7)
    assert (info.max_completion_length, info.max_completion_length_origin) == (3, "longest response")
    assert batch.groups[0].responses[1].advantage == pytest.approx(0.5 / (0.5**0.5 + 1e-4))
    assert findings["ROLL006"].status == "warn", "no limit and no `terminated`: endings are a guess"
    assert "last block" in findings["ROLL014"].message


BAD = [
    ("ROLL001", "fail", [{"prompt": "lonely", "response": "x", "reward": 1.0}]),
    ("ROLL004", "fail", [{"prompt": "t", "response_tokens": [t], "advantage": 1.0} for t in (1, 103)]),
    ("ROLL004", "fail", [{"prompt": "t", "response_tokens": [t], "advantage": 1.0} for t in (-1, 1)]),
    ("ROLL012", "fail", [{"prompt": "n", "response": "x", "reward": r} for r in (1.0, float("nan"))]),
    ("ROLL012", "fail", [{"prompt": "n", "response": "x", "advantage": a} for a in (1.0, float("inf"))]),
    ("ROLL012", "fail", [{"prompt": "n", "response": "x"}] * 2),
    ("ROLL013", "warn", [{"prompt": "n", "response": "", "reward": 1.0}]),
    ("ROLL013", "warn", [b'{"prompt": "a", \n']),
    ("ROLL013", "warn", [b'{"prompt": "\xff", "response": "a"}\n']),
]


@pytest.mark.parametrize(("code", "status", "rows"), BAD)
def test_bad_input_is_named_and_the_rest_goes_on(tmp_path, policy, code, status, rows):
    clean, _, _ = run(rollouts(RunSpec(rollouts=write(tmp_path / "clean.jsonl", good_rows())), policy))
    path = write(tmp_path / "r.jsonl", [*good_rows(4), *rows, *good_rows()[8:]])
    batch, findings, _ = run(rollouts(RunSpec(rollouts=path), policy))
    assert codes(findings, "warn", "fail") == {code}
    assert findings[code].status == status
    assert batch == clean
    assert "9" in str(findings[code].evidence), "the line is named"


@pytest.mark.parametrize(("code", "status", "rows"), BAD)
def test_nothing_but_bad_input_is_an_error(tmp_path, policy, code, status, rows):
    with pytest.raises(ProbeError) as error:
        run(rollouts(RunSpec(rollouts=write(tmp_path / "r.jsonl", rows)), policy))
    assert error.value.code == code
    assert error.value.remedy


def test_nothing_found_and_empty_file(tmp_path, policy):
    with pytest.raises(ProbeError, match="found none that fit") as error:
        run(rollouts(RunSpec(checkpoint=str(tmp_path)), policy))
    assert error.value.exit_code == 3
    with pytest.raises(ProbeError, match="empty file"):
        run(rollouts(RunSpec(rollouts=write(tmp_path / "r.jsonl", [])), policy))


def test_all_advantages_zero_goes_on_and_fails_the_check(tmp_path, policy):
    path = write(tmp_path / "r.jsonl", [r | {"reward": 1.0} for r in good_rows()])
    _, findings, _ = run(rollouts(RunSpec(rollouts=path), policy))
    assert findings["ROLL003"].status == "fail"


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_mutated_lines_give_findings_or_a_probe_error(tmp_path, policy, data):
    content = bytearray(b"".join(json.dumps(r).encode() + b"\n" for r in good_rows(3)))
    for _ in range(data.draw(st.integers(1, 12))):
        at = data.draw(st.integers(0, len(content) - 1))
        change = data.draw(st.sampled_from(["flip", "cut", "swap"]))
        if change == "flip":
            content[at] = data.draw(st.integers(0, 255))
        elif change == "cut":
            del content[at : at + data.draw(st.integers(1, 30))]
            content += b" "
        else:
            content[at:] = content[at:][::-1]
    path = tmp_path / "fuzz.jsonl"
    path.write_bytes(bytes(content))
    try:
        batch, findings, _ = run(rollouts(RunSpec(rollouts=str(path)), policy))
    except ProbeError:
        return
    assert batch.units
    assert "ROLL013" in findings


def reward_module(tmp_path, monkeypatch, name, body):
    (tmp_path / f"{name}.py").write_text(body)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, name, raising=False)


def sampling_spec(tmp_path, function, prompts, **options):
    return RunSpec(
        prompts=write(tmp_path / "prompts.jsonl", prompts),
        reward=function,
        num_generations=3,
        max_completion_length=5,
        **options,
    )


def test_sampled_here(tmp_path, monkeypatch, policy):
    reward_module(
        tmp_path,
        monkeypatch,
        "length_reward",
        "def f(prompts, completions, answer, **kwargs):\n"
        "    for prompt, completion in zip(prompts, completions):\n"
        "        assert isinstance(prompt, str) or completion[0]['role'] == 'assistant'\n"
        "    assert kwargs['completion_ids'] and answer[:3] == ['4'] * 3 and answer[-1] is None\n"
        "    return [float(i) for i in range(len(completions))]\n",
    )
    chat = [{"role": "user", "content": "2+2"}]
    prompts = [{"prompt": "2+2", "answer": "4"}, b"{\n", {"prompt": "2+2", "answer": "4"}, {"prompt": chat}]
    spec = sampling_spec(tmp_path, "length_reward:f", prompts, micro_batch=4)
    path_before = list(sys.path)
    torch.manual_seed(1)
    state = torch.get_rng_state()
    batch, findings, events = run(rollouts(spec, policy))
    assert torch.equal(torch.get_rng_state(), state)
    assert sys.path == path_before
    assert [e.done for e in events if isinstance(e, Progress)] == [4, 8, 9]
    info = info_of(events)
    assert (info.sampled_here, info.tokens_from, info.format) == (True, "ids", "sampled here")
    assert [g.text for g in batch.groups] == ["2+2", "2+2", "user: 2+2"]
    assert batch.groups[1].id == f"{batch.groups[0].id}-2" or batch.groups[0].id == f"{batch.groups[1].id}-2"
    assert [r.reward for g in batch.groups for r in g.responses] == [float(i) for i in range(9)]
    for response in (r for g in batch.groups for r in g.responses):
        assert response.terminated == (response.tokens[-1] == EOS)
        assert response.text == policy.tokenizer.decode(response.tokens, skip_special_tokens=True)
    assert codes(findings, "warn", "fail") == {"ROLL013", "ROLL014"}
    assert "line 2" in findings["ROLL013"].message
    assert "ROLL017" not in findings
    assert run(rollouts(spec, policy))[0] == batch


@pytest.mark.parametrize(
    ("function", "says"),
    [
        ("no_colon", "expected PKG.MOD:FUNC"),
        ("no_such_module:f", "ModuleNotFoundError"),
        ("rewards_gone_wrong:missing", "AttributeError"),
        ("rewards_gone_wrong:NUMBER", "expected a function, got int"),
        ("rewards_gone_wrong:raises", "it raised KeyError: 'answer'"),
        ("rewards_gone_wrong:leaves", "it raised SystemExit"),
        ("rewards_gone_wrong:short", "expected 6 rewards, one a completion, got 1"),
        ("rewards_gone_wrong:text", "expected 6 numbers or None, got list"),
        ("rewards_gone_wrong:nothing", "expected 6 numbers or None, got NoneType"),
    ],
)
def test_reward_function_errors(tmp_path, monkeypatch, policy, function, says):
    body = (
        "import sys\nNUMBER = 3\n"
        "def raises(prompts, completions): return {}['answer']\n"
        "def leaves(completions, **kwargs): sys.exit(0)\n"
        "def short(completions): return [1.0]\n"
        "def text(completions): return ['good'] * len(completions)\n"
        "def nothing(completions): pass\n"
    )
    reward_module(tmp_path, monkeypatch, "rewards_gone_wrong", body)
    with pytest.raises(ProbeError) as error:
        run(rollouts(sampling_spec(tmp_path, function, [{"prompt": "a"}, {"prompt": "b"}]), policy))
    assert says in error.value.message
    assert "\n" not in error.value.message


def test_a_reward_of_none_leaves_its_group_out(tmp_path, monkeypatch, policy):
    body = "def f(completions, **kwargs): return [None] + [1.0] * (len(completions) - 1)\n"
    reward_module(tmp_path, monkeypatch, "reward_none", body)
    spec = sampling_spec(tmp_path, "reward_none:f", [{"prompt": "a"}, {"prompt": "b"}])
    batch, findings, _ = run(rollouts(spec, policy))
    assert [g.text for g in batch.groups] == ["b"]
    assert findings["ROLL012"].status == "fail"
    assert batch.units[0].role == "E"


def test_live_rows_tensors_and_batch_agree(tmp_path, policy):
    spec = RunSpec(rollouts=write(tmp_path / "r.jsonl", good_rows()))
    from_file, _, _ = run(rollouts(spec, policy))
    from_rows, _, _ = run(live_rollouts(RunSpec(), policy, good_rows()))
    assert from_rows == from_file

    pairs = [(g, r) for g in from_file.groups for r in g.responses]
    t = max(len(r.tokens) for _, r in pairs)
    tensors = {
        "prompt_ids": torch.tensor([[0, *g.tokens] for g, _ in pairs]),
        "prompt_mask": torch.tensor([[0] + [1] * len(g.tokens) for g, _ in pairs]),
        "completion_ids": torch.tensor([[*r.tokens] + [EOS] * (t - len(r.tokens)) for _, r in pairs]),
        "completion_mask": torch.tensor([[i < len(r.tokens) for i in range(t)] for _, r in pairs]),
        "advantages": torch.tensor([r.advantage for _, r in pairs]),
        "num_items_in_batch": 3,
    }
    from_tensors, findings, events = run(live_rollouts(RunSpec(), policy, tensors))
    assert info_of(events).format == "TRL tensors (live)"
    assert codes(findings, "warn", "fail", "info") == set()
    for one, other in zip(from_tensors.units, from_file.units, strict=True):
        assert (one.id, one.role) == (other.id, other.role)
        for a, b in zip(one.groups[0].responses, other.groups[0].responses, strict=True):
            assert (a.tokens, a.advantage, a.terminated) == (b.tokens, b.advantage, b.terminated)

    taken, findings, events = run(live_rollouts(RunSpec(), policy, from_file))
    assert taken is from_file
    assert info_of(events).prompts == 8
    assert findings["ROLL014"].status == "ok"


def test_live_tensors_with_holes_or_nothing_in_the_mask(policy):
    tensors = {
        "prompt_ids": torch.tensor([[5]] * 4),
        "prompt_mask": torch.ones(4, 1),
        "completion_ids": torch.tensor([[6, 7, EOS]] * 4),
        "completion_mask": torch.tensor([[1, 1, 1], [1, 1, 1], [1, 0, 1], [0, 0, 0]]),
        "advantages": torch.tensor([1.0, -1.0, 0.0, 0.0]),
    }
    batch, findings, _ = run(live_rollouts(RunSpec(), policy, tensors))
    assert len(batch.groups[0].responses) == 2
    reasons = findings["ROLL013"].evidence["rows"]
    assert "holes" in reasons[0]
    assert "empty response" in reasons[1]


@pytest.mark.parametrize(
    ("batch", "says"),
    [
        ([], "got list of length 0"),
        ("path.jsonl", "got str"),
        ({"input_ids": 3}, "a mapping with input_ids"),
        ([3], "expected a mapping, got int"),
    ],
)
def test_live_batches_of_no_kind(policy, batch, says):
    with pytest.raises(ProbeError, match=says):
        run(live_rollouts(RunSpec(), policy, batch))


def test_live_tensors_of_wrong_shape(policy):
    ones = torch.ones(4, 2, dtype=torch.long)
    tensors = dict.fromkeys(("prompt_ids", "prompt_mask", "completion_ids", "completion_mask"), ones)
    with pytest.raises(ProbeError, match=r"advantages.*a tensor of shape \(4, 2\)"):
        run(live_rollouts(RunSpec(), policy, tensors | {"advantages": ones}))
    with pytest.raises(ProbeError, match=r"completion_ids.*shape of completion_mask"):
        run(
            live_rollouts(
                RunSpec(), policy, tensors | {"advantages": torch.ones(4), "completion_mask": ones[:, :1]}
            )
        )
