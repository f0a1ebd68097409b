from __future__ import annotations

import pytest

from probe_engine.errors import ProbeError
from probe_engine.sources.rollouts.record import RawRollout
from probe_engine.sources.rollouts.tokens import prompt_ids, tokenised

BOS, EOS = 0, 1
MESSAGES = ({"role": "system", "content": "S"}, {"role": "user", "content": "2+2"})


def ids(tokenizer, text):
    return tuple(tokenizer.convert_tokens_to_ids(list(text)))


def one(tokenizer, *, limit=None, eos=(EOS,), **fields):
    rows, bad = tokenised([RawRollout(line=1, **fields)], tokenizer, eos, limit)
    assert not bad, bad
    return rows[0]


def test_a_string_prompt_gets_the_tokenizers_special_tokens(tokenizer):
    assert prompt_ids("ab", tokenizer) == (BOS, *ids(tokenizer, "ab"))


def test_messages_go_through_the_chat_template_once(tokenizer):
    expected = ids(tokenizer, "<system>S<user>2+2<assistant>")
    assert prompt_ids(MESSAGES, tokenizer) == expected
    # trl tokenises inside apply_chat_template: the same ids.
    batch = tokenizer.apply_chat_template(
        conversation=[list(MESSAGES)], add_generation_prompt=True, tokenize=True, return_dict=True
    )
    assert tuple(batch["input_ids"][0]) == expected


@pytest.mark.parametrize(
    ("said", "limit", "tokens", "terminated", "ending"),
    [
        (True, None, "abE", True, "restored"),
        (True, 2, "abE", True, "restored"),
        (False, 9, "ab", False, "cut"),
        (None, 3, "abE", True, "restored"),
        (None, 2, "ab", False, "cut"),
        (None, None, "abE", True, "assumed"),
    ],
)
def test_eos_comes_back_where_a_response_ended_itself(tokenizer, said, limit, tokens, terminated, ending):
    row = one(tokenizer, prompt="p", response="ab", terminated=said, limit=limit)
    assert row.tokens == tuple(EOS if c == "E" else ids(tokenizer, c)[0] for c in tokens)
    assert (row.terminated, row.ending, row.from_text) == (terminated, ending, True)


def test_a_response_of_eos_alone(tokenizer):
    assert one(tokenizer, prompt="p", response="", terminated=True).tokens == (EOS,)


def test_ids_beat_text(tokenizer):
    row = one(
        tokenizer,
        prompt="p",
        prompt_tokens=(50, 51),
        response="ab",
        response_tokens=(60, EOS),
        logprobs=(-1.0, -2.0),
    )
    assert (row.prompt, row.tokens, row.text) == ((50, 51), (60, EOS), "ab")
    assert (row.terminated, row.ending, row.from_text, row.logprobs) == (True, "logged", False, (-1.0, -2.0))


@pytest.mark.parametrize(
    ("said", "limit", "terminated", "ending"),
    [
        (None, 2, False, "logged"),
        (False, None, False, "logged"),
        (None, 5, True, "lost"),
        (True, None, True, "lost"),
    ],
)
def test_ids_are_never_touched_but_a_lost_eos_is_noticed(tokenizer, said, limit, terminated, ending):
    row = one(tokenizer, prompt="p", response_tokens=(60, 61), terminated=said, limit=limit)
    assert (row.tokens, row.terminated, row.ending) == ((60, 61), terminated, ending)


def test_any_declared_eos_ends_ids_and_the_first_is_restored(tokenizer):
    assert one(tokenizer, prompt="p", response_tokens=(60, 9), eos=(EOS, 9)).terminated
    assert one(tokenizer, prompt="p", response="a", terminated=True, eos=(9, EOS)).tokens[-1] == 9


def test_ids_need_no_tokenizer_and_text_does():
    assert one(None, prompt_tokens=(5,), response_tokens=(6, EOS)).text == ""
    for fields in ({"prompt": "p", "response_tokens": (6,)}, {"prompt_tokens": (5,), "response": "a"}):
        with pytest.raises(ProbeError, match="expected a tokenizer") as error:
            one(None, **fields)
        assert error.value.code == "CKPT008"


def test_ids_outside_the_vocabulary_are_left_to_their_check(tokenizer):
    assert one(tokenizer, prompt_tokens=(-5, 10**6), response_tokens=(10**6,)).tokens == (10**6,)


def test_a_chat_template_that_refuses_is_a_bad_row(tokenizer):
    class Strict:
        def apply_chat_template(self, *args, **kwargs):
            raise ValueError("roles must alternate\nand more")

    rows, bad = tokenised([RawRollout(line=4, prompt=MESSAGES, response="a")], Strict(), (EOS,), None)
    assert not rows
    assert (bad[0].line, "roles must alternate" in bad[0].reason) == (4, True)


def test_an_empty_prompt_without_bos_is_a_bad_row(tokenizer):
    class NoBos:
        def __call__(self, text):
            return {"input_ids": []}

    _, bad = tokenised([RawRollout(line=2, prompt="", response="a")], NoBos(), (EOS,), None)
    assert [b.reason for b in bad] == ["the prompt has no tokens"]
