"""S against one unpadded sequence at a time, float64, plain log_softmax."""

from __future__ import annotations

import pytest
import tiny
import torch

from probe_engine.model import teacher_forcing
from probe_engine.model.teacher_forcing import (
    Layout,
    TokenSequence,
    response_log_probs,
    response_logits,
    sequence_log_probs,
    token_log_probs,
)
from probe_engine.model.unit_gradients import objectives

SEQUENCES = [
    TokenSequence((5, 6, 7), (1, 2, 3, 4)),
    TokenSequence((9,), (8, 8)),
    TokenSequence((4, 4, 4, 4, 4), (0,)),
]


def naive(model: torch.nn.Module, s: TokenSequence, temperature: float = 1.0) -> torch.Tensor:
    logits = model(torch.tensor([s.prompt + s.response])).logits[0] / temperature
    log_probs = logits.log_softmax(-1)
    start = len(s.prompt) - 1
    return torch.stack([log_probs[start + i, token] for i, token in enumerate(s.response)])


@pytest.mark.parametrize("kind", sorted(tiny.CONFIGS.keys() - {"mixtral"}))  # its experts know no float64
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_token_log_probs_are_those_of_the_unpadded_sequence(kind, side, temperature):
    model = tiny.model(kind, dtype=torch.float64)
    with torch.no_grad():
        log_probs, mask = token_log_probs(model, SEQUENCES, temperature=temperature, padding_side=side)
        for row, keep, s in zip(log_probs, mask, SEQUENCES, strict=True):
            torch.testing.assert_close(row[keep], naive(model, s, temperature), rtol=1e-6, atol=1e-7)
            assert not row[~keep].any()
        S = sequence_log_probs(log_probs)
    torch.testing.assert_close(
        S, torch.stack([naive(model, s, temperature).sum() for s in SEQUENCES]).detach(), rtol=1e-6, atol=1e-6
    )


def test_only_response_positions_are_kept():
    layout = Layout.of(SEQUENCES, device=torch.device("cpu"))
    assert layout.input_ids.shape == (3, 7)
    # From the earliest last prompt token (that of the prompt of length 1) to the end.
    assert layout.targets.shape == (3, 7)
    one = Layout.of([SEQUENCES[0]], device=torch.device("cpu"))
    assert one.targets.shape == (1, 5)
    assert one.mask.tolist() == [[True] * 4 + [False]]
    assert layout.mask.sum(1).tolist() == [4, 2, 1]


def test_mask_comes_from_lengths_so_that_a_pad_token_in_a_response_counts():
    padded = Layout.of([TokenSequence((3,), (0, 0)), SEQUENCES[0]], device=torch.device("cpu"))
    assert padded.mask.sum(1).tolist() == [2, 4]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_chunks_change_no_value_and_no_gradient(dtype, monkeypatch):
    layout = Layout.of(SEQUENCES, device=torch.device("cpu"))
    torch.manual_seed(0)
    logits = torch.randn(3, 7, tiny.VOCABULARY).to(dtype).requires_grad_()

    def run(chunk_bytes: int) -> tuple[torch.Tensor, torch.Tensor]:
        monkeypatch.setattr(teacher_forcing, "CHUNK_BYTES", chunk_bytes)
        log_probs = response_log_probs(logits, layout)
        (gradient,) = torch.autograd.grad(log_probs.sum(), logits)
        return log_probs, gradient

    whole, whole_gradient = run(2**30)
    chunked, chunked_gradient = run(4 * tiny.VOCABULARY * 2)
    assert torch.equal(whole, chunked)
    assert torch.equal(whole_gradient, chunked_gradient)
    assert whole.dtype == torch.float32
    expected = logits.detach().float().log_softmax(-1).gather(-1, layout.targets[..., None]).squeeze(-1)
    torch.testing.assert_close(whole, torch.where(layout.mask, expected, 0.0))


def test_a_model_without_position_ids_or_logits_to_keep_is_scored_too():
    inner = tiny.model("llama", dtype=torch.float64)

    class Bare(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
            return self.inner(input_ids=input_ids, attention_mask=attention_mask).logits

    with torch.no_grad():
        bare, _ = token_log_probs(Bare(), SEQUENCES)
        whole, _ = token_log_probs(inner, SEQUENCES)
    torch.testing.assert_close(bare, whole)


def test_a_forward_that_takes_no_positions_of_logits_gives_the_same() -> None:
    model = tiny.model("llama")
    layout = Layout.of(objectives(tiny.batch())[0].sequences, device=torch.device("cpu"))
    expected = response_logits(model, layout)
    forward = model.forward

    def counting(input_ids, attention_mask=None, position_ids=None, logits_to_keep: int = 0):
        assert isinstance(logits_to_keep, int)
        return forward(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            logits_to_keep=logits_to_keep,
        )

    model.forward = counting
    torch.testing.assert_close(response_logits(model, layout), expected)
