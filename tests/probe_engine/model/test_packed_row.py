"""Responses to one prompt with the prompt in common: who stands where, and what each copy of it takes."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import tiny
import torch
from against_loop import CONSTANT_LAMBDA, against_loop, build, trained
from torch import Tensor, nn

from probe_engine.model.packed_attention import attention_by_sequence
from probe_engine.model.packed_layout import in_one_row
from probe_engine.model.packed_row import COPIES, Row, Segment
from probe_engine.model.teacher_forcing import TokenSequence, response_log_probs, response_logits
from probe_engine.model.unit_gradients import Fused
from probe_engine.model.workload import PassTokens, scored_tokens

PROMPT = (5, 6, 7)
SEQUENCES = [
    TokenSequence(PROMPT, (1, 2)),
    TokenSequence(PROMPT, (3,)),
    TokenSequence(PROMPT, (4, 4, 4, 4)),  # the longest is not the first
    TokenSequence(PROMPT, (8, 9)),  # another unit's
    TokenSequence((9,), (2, 2)),
    TokenSequence((9,), (3, 3)),  # one token of a prompt is nothing to share
]
OWNERS = [0, 0, 0, 1, 2, 2]


def test_a_prompt_stands_there_twice_and_the_longest_response_right_behind_it() -> None:
    row = Row.of(SEQUENCES, OWNERS)
    assert row.segments == (
        Segment((5, 6), 0, None),
        Segment((7, 4, 4, 4, 4), 2, 2, prompt=0),
        Segment((7, 1, 2), 2, 0, prompt=0),
        Segment((7, 3), 2, 1, prompt=0),
        Segment((5, 6), 0, None),
        Segment((5, 6, 7, 8, 9), 0, 3),
        Segment((9, 2, 2), 0, 4),
        Segment((9, 3, 3), 0, 5),
    )
    assert row.shared == {0: [0, 1, 2]}
    assert row.copies == {0: [0, 4]}
    assert row.places == (2, 3, 1, 5, 6, 7)
    assert row.owners(torch.tensor(OWNERS)).tolist() == [0, 0, 0, 0, 0, 1, 2, 2]


@pytest.mark.parametrize("family", [*sorted({*tiny.CONFIGS} - {"mixtral"})])
def test_log_probs_are_those_of_each_alone(family: str) -> None:
    model = tiny.model(family, dtype=torch.float64)
    # One more that is as long as another one to its prompt: the two attend together.
    sequences, owners = [*SEQUENCES, TokenSequence(PROMPT, (6, 1))], [*OWNERS, 0]
    layout = in_one_row(sequences, owners, device=torch.device("cpu"))
    assert layout.input_ids.numel() < sum(map(len, sequences))
    with torch.no_grad(), attention_by_sequence():
        found = response_log_probs(response_logits(model, layout), layout)
    for log_probs, s in zip(found[0].split(layout.responses), sequences, strict=True):
        alone = model(torch.tensor([s.prompt + s.response])).logits[0].log_softmax(-1)
        expected = [alone[len(s.prompt) - 1 + i, token] for i, token in enumerate(s.response)]
        torch.testing.assert_close(log_probs, torch.stack(expected).detach(), rtol=1e-6, atol=1e-7)


def test_responses_of_one_length_attend_together(monkeypatch: pytest.MonkeyPatch) -> None:
    sequences = [TokenSequence(PROMPT, response) for response in ((1, 2), (3, 4), (5,), (6,), (7,))]
    model, given = tiny.model("llama"), []
    plain = torch.nn.functional.scaled_dot_product_attention

    def counted(query: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        given.append(tuple(query.shape[:1] + query.shape[2:3]))
        return plain(query, *args, **kwargs)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", counted)
    with torch.no_grad(), attention_by_sequence():
        response_logits(model, in_one_row(sequences, [0] * 5, device=torch.device("cpu"), copies=1))
    assert given == [(1, 2), (2, 3), (3, 2)] * model.config.num_hidden_layers


@pytest.mark.parametrize("kinds", [1, 2])
def test_what_a_copy_takes_is_its_kind_s_sum(kinds: int) -> None:
    """Σ_i w_i g_i of the responses' gradients g at their prompt, for each kind of weights w."""
    row = Row.of(SEQUENCES, OWNERS)
    generator = torch.Generator().manual_seed(1)
    w = torch.zeros(kinds, 3, len(SEQUENCES), dtype=torch.float64)
    for sequence, owner in enumerate(OWNERS):
        w[:, owner, sequence] = torch.randn(kinds, generator=generator, dtype=torch.float64)
    g = torch.randn(3, generator=generator, dtype=torch.float64)
    row.share(w)
    spread = row.weights(w)
    for kind in range(COPIES):
        taken = sum(row.shares.of(i)[kind] * g[i] for i in range(3))
        for k in range(kinds):
            expected = float(w[k, 0, :3] @ g) if k == kind else 0.0
            assert float(spread[k, 0, row.copies[0][kind]] * taken) == pytest.approx(expected)
        assert spread[:, 1:, row.copies[0]].abs().max() == 0  # no other unit's
    assert max(abs(share) for i in range(3) for share in row.shares.of(i)) == pytest.approx(1)
    assert torch.equal(spread[..., list(row.places)], w)


def test_weights_of_nothing_share_nothing() -> None:
    row = Row.of(SEQUENCES, OWNERS)
    row.share(torch.zeros(2, 3, len(SEQUENCES), dtype=torch.float64))
    assert [row.shares.of(i) for i in range(3)] == [(0, 0)] * 3
    row.share(None)
    assert [row.shares.of(i) for i in range(3)] == [(1, 0)] * 3


class Gained(nn.Module):
    """Attention behind a parameter that no rule knows: autograd goes back through attention to it."""

    def __init__(self, inner: nn.Module, gain: nn.Parameter) -> None:
        super().__init__()
        self.inner, self.gain = inner, gain

    def forward(self, hidden_states: Tensor, **kwargs: object) -> object:
        return self.inner(hidden_states=hidden_states * self.gain, **kwargs)


@pytest.mark.parametrize("shared", [False, True])
def test_what_autograd_differentiates_behind_attention_is_loop_s(shared: bool) -> None:
    """From the output of one module, or of the innermost one around both uses."""
    model = build("llama", "full", dtype=torch.float64)
    gains = [nn.Parameter(1 + 0.1 * torch.randn(16, dtype=torch.float64)) for _ in range(2)]
    layers = model.model.layers
    for layer, gain in zip(layers, gains[:1] * 2 if shared else gains, strict=False):
        layer.self_attn = Gained(layer.self_attn, gain)
    found, fused = against_loop(model, units=CONSTANT_LAMBDA, rao_blackwell=True)
    assert found < 1e-10
    assert fused.packs(CONSTANT_LAMBDA)
    assert fused.fallback_parameters == (1 if shared else 2)


@pytest.mark.parametrize(("scoring", "copies"), [(False, COPIES), (True, 1)])
def test_tokens_are_spared(scoring: bool, copies: int) -> None:
    model = build("llama", "lora")
    fused = Fused(model, trained(model), 16)
    assert fused.packs(CONSTANT_LAMBDA)
    given: list[int] = []
    handle = model.register_forward_pre_hook(
        lambda _module, _args, kwargs: given.append(kwargs["input_ids"].numel()), with_kwargs=True
    )
    passes = (
        fused.scores(CONSTANT_LAMBDA) if scoring else fused.measurements(CONSTANT_LAMBDA, lambda *_: None)
    )
    assert len(list(passes)) == len(CONSTANT_LAMBDA)
    handle.remove()
    prompts = [(len(u.sequences[0].prompt), len(u.sequences)) for u in CONSTANT_LAMBDA]
    spared = sum((G - copies) * (P - 1) for P, G in prompts)
    assert spared > 0
    assert sum(given) == sum(u.tokens for u in CONSTANT_LAMBDA) - spared
    foreseen = PassTokens.of("fused", CONSTANT_LAMBDA, 16, packs=True).differentiated
    assert sum(given) == (scored_tokens("fused", CONSTANT_LAMBDA, 16, packs=True) if scoring else foreseen)


@pytest.mark.parametrize("rao_blackwell", [False, True])
def test_a_kind_s_products_leave_the_other_kind_s_copy_out(
    monkeypatch: pytest.MonkeyPatch, rao_blackwell: bool
) -> None:
    model = build("llama", "full")
    fused = Fused(model, trained(model), 16)
    (unit, *_) = CONSTANT_LAMBDA
    assert fused.packs([unit])
    depths: Counter[int] = Counter()
    plain = torch.baddbmm

    def counted(total: Tensor, a: Tensor, b: Tensor, **kwargs: Any) -> Tensor:
        depths[b.shape[1]] += 1
        return plain(total, a, b, **kwargs)

    monkeypatch.setattr(torch, "baddbmm", counted)
    fused.measure(unit, rao_blackwell=rao_blackwell)
    prompt, responses = len(unit.sequences[0].prompt), [len(s.response) for s in unit.sequences]
    kinds, matrices = 3 if rao_blackwell else 2, 7 * model.config.num_hidden_layers
    through_the_layers = prompt - 1 + sum(responses) + len(responses)
    assert depths == {through_the_layers: kinds * matrices, sum(responses): kinds}  # and the head
