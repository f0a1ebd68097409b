"""Derivatives by the logits that are written out, against autograd's."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from probe_engine.model import logit_derivatives, teacher_forcing
from probe_engine.model.logit_derivatives import Spending, expendable, log_prob_sums, rao_blackwell_sums
from probe_engine.model.teacher_forcing import (
    Layout,
    TokenSequence,
    response_log_probs,
    response_statistics,
    sequence_log_probs,
)

VOCABULARY = 11
COTANGENTS = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)


@pytest.fixture
def layout() -> Layout:
    """Prompts and responses of several lengths: some kept positions are no response token's."""
    sequences = [
        TokenSequence((1, 2), (3, 4, 5)),
        TokenSequence((1, 2, 3, 4), (3,)),
        TokenSequence((7,), (8, 9)),
    ]
    return Layout.of(sequences, device=torch.device("cpu"))


def logits(layout: Layout, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    shape = (*layout.targets.shape, VOCABULARY)
    return (3 * torch.randn(shape, generator=generator, dtype=torch.float64)).to(dtype).requires_grad_()


def to_come(layout: Layout) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(int(n), generator=generator, dtype=torch.float64) for n in layout.mask.sum(-1)]


def both(layout: Layout, z: Tensor, temperature: float) -> list[tuple[Tensor, Tensor]]:
    """Written out, and by autograd: S, and what (2b) differentiates."""
    tokens, weights = response_statistics(z, layout, temperature), to_come(layout)
    return [
        (
            log_prob_sums(z, layout, tokens, temperature),
            sequence_log_probs(response_log_probs(z, layout, temperature)),
        ),
        (
            rao_blackwell_sums(z, layout, tokens, weights, temperature),
            teacher_forcing.rao_blackwell_sums(z, layout, weights, temperature),
        ),
    ]


@pytest.mark.parametrize("piece_bytes", [4 * VOCABULARY, 2**21])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_they_are_autograd_s(layout, temperature, piece_bytes, monkeypatch):
    monkeypatch.setattr(logit_derivatives, "PIECE_BYTES", piece_bytes)
    z = logits(layout)
    for ours, theirs in both(layout, z, temperature):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
        # Twice over the same graph, as the pass for (2b) follows that for S.
        for _ in range(2):
            (mine,) = torch.autograd.grad(ours, z, COTANGENTS, retain_graph=True)
            (reference,) = torch.autograd.grad(theirs, z, COTANGENTS, retain_graph=True)
            torch.testing.assert_close(mine, reference, rtol=1e-12, atol=1e-13)


def test_tokens_that_a_model_masks_out_have_no_part(layout):
    masked = logits(layout).detach()
    masked[..., -1] = -torch.inf
    z = masked.requires_grad_()
    for ours, _ in both(layout, z, 1.0):
        (mine,) = torch.autograd.grad(ours, z, COTANGENTS)
        assert torch.isfinite(mine).all()
        assert not mine[..., -1].any()


def test_what_is_no_response_token_gets_nothing(layout):
    z = logits(layout)
    assert not layout.mask.all()
    for ours, _ in both(layout, z, 1.0):
        (mine,) = torch.autograd.grad(ours, z, COTANGENTS)
        assert not mine[~layout.mask].any()
        assert mine[layout.mask].any(-1).all()


def test_narrow_logits_are_widened_before_anything_cancels(layout):
    """1 − π of a token that is nearly sure would be gone in bfloat16: it is rounded once, at the end."""
    sure = torch.zeros(*layout.targets.shape, VOCABULARY)
    sure.scatter_(-1, layout.targets[..., None], 9.0)
    z = sure.bfloat16().requires_grad_()
    wide = z.detach().double().requires_grad_()
    for (ours, _), (_, theirs) in zip(both(layout, z, 1.0), both(layout, wide, 1.0), strict=True):
        (mine,) = torch.autograd.grad(ours, z, COTANGENTS)
        (reference,) = torch.autograd.grad(theirs, wide, COTANGENTS)
        assert mine.dtype == torch.bfloat16
        torch.testing.assert_close(mine.double(), reference, rtol=2**-7, atol=1e-7)


def test_the_last_reverse_pass_writes_over_the_logits_what_others_leave_alone(layout):
    weight = logits(layout).detach().flatten(0, -2).requires_grad_()
    unit = torch.eye(len(weight), dtype=torch.float64)
    z = (unit @ weight).view(*layout.targets.shape, VOCABULARY)
    assert expendable(z)
    before, spending = z.detach().clone(), Spending()
    tokens, weights = response_statistics(z, layout), to_come(layout)
    S = log_prob_sums(z, layout, tokens, 0.7, spending)
    sums = rao_blackwell_sums(z, layout, tokens, weights, 0.7, spending)
    expected = [
        torch.autograd.grad(root, weight, COTANGENTS, retain_graph=True)[0].clone() for root in (S, sums)
    ]
    assert torch.equal(z, before)
    (of_S,) = torch.autograd.grad(S, weight, COTANGENTS, retain_graph=True)
    spending.now = True
    (of_sums,) = torch.autograd.grad(sums, weight, COTANGENTS)
    assert torch.equal(of_S, expected[0])
    assert torch.equal(of_sums, expected[1])
    assert torch.equal(z.detach().flatten(0, -2), of_sums)
    with pytest.raises(RuntimeError):  # nobody takes what was written over for logits
        torch.autograd.grad(S, weight, COTANGENTS)


def test_logits_that_another_derivative_takes_are_not_expendable():
    x = torch.ones(2, 3, 4, requires_grad=True)
    w = torch.ones(4, 5, requires_grad=True)
    assert expendable(x @ w)
    assert expendable(30 * torch.tanh(x @ w / 30))
    assert not expendable(torch.tanh(x @ w))
    assert not expendable((x @ w)[:, :2])
    assert not expendable(x)
    assert not expendable((x @ w).detach())


def test_without_a_graph_there_is_none(layout):
    z = logits(layout).detach()
    tokens = response_statistics(z, layout)
    assert not log_prob_sums(z, layout, tokens).requires_grad
