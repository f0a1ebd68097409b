"""`fused` on models whose layers do what none of the usual ones do: right by rules, or left to autograd."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import tiny
import torch
from against_loop import CONSTANT_LAMBDA, against_loop
from torch import nn
from torch.nn import functional as F


class Odd(nn.Module):
    """A bag of words up to each position; what comes between is up to the case."""

    def __init__(self) -> None:
        super().__init__()
        d = 6
        self.embed = nn.Embedding(tiny.VOCABULARY, d, padding_idx=3)
        self.first, self.second = nn.Linear(d, d), nn.Linear(d, d)
        self.norm = nn.LayerNorm(d)
        self.head = nn.Linear(d, tiny.VOCABULARY, bias=False)
        self.free = nn.Parameter(torch.ones(d))
        self.unused = nn.Parameter(torch.ones(d))

    def forward(self, input_ids, attention_mask):
        x = self.embed(input_ids)
        x = self.middle(x.cumsum(1) / 3)
        return SimpleNamespace(logits=self.logits(self.norm(x)))

    def middle(self, x):
        return torch.tanh(self.first(x)) + self.second(x) * self.free

    def logits(self, x):
        return self.head(x)

    def get_input_embeddings(self):
        return self.embed


class CalledTwice(Odd):
    def middle(self, x):
        return torch.tanh(self.second(torch.tanh(self.first(x)) + self.first(x)))


class FunctionalHead(Odd):
    def logits(self, x):
        return F.linear(x, self.embed.weight)


class PositionsFirst(Odd):
    def middle(self, x):
        return torch.tanh(self.second(torch.tanh(self.first(x.transpose(0, 1))))).transpose(0, 1)


class Shuffled(Odd):
    def middle(self, x):
        flat = x.flatten(0, 1)
        order = torch.arange(len(flat) - 1, -1, -1)
        return x + torch.tanh(self.first(flat[order]))[order].view_as(x)


class FromParameterAlone(Odd):
    def middle(self, x):
        return x * torch.tanh(self.second(torch.tanh(self.first(self.free.expand_as(x)))))


class WrittenInto(Odd):
    def middle(self, x):
        y = self.first(x)
        y[:, ::2] *= 2
        return y + self.second(y.clone())


class ByKeyword(Odd):
    def middle(self, x):
        return torch.tanh(self.first(input=x))


class Doubled(nn.Linear):
    def forward(self, x):
        return F.linear(2 * x, self.weight, self.bias)


class OwnArithmetic(Odd):
    def __init__(self) -> None:
        super().__init__()
        self.first = Doubled(6, 6)


class SeveralOutputs(Odd):
    def logits(self, x):
        return self.head(torch.cat([x[:, :1], x[:, 1:] + self.first(x)[:, 1:]], 1))


AUTOGRAD = [FunctionalHead, PositionsFirst, Shuffled, FromParameterAlone, WrittenInto, OwnArithmetic]
RULES = [Odd, CalledTwice, ByKeyword, SeveralOutputs]


@pytest.mark.parametrize("case", AUTOGRAD + RULES)
@pytest.mark.parametrize("tied", [False, True])
def test_odd_models_are_right_or_left_to_autograd(case, tied):
    torch.manual_seed(7)
    model = case().double()
    if tied:
        model.head.weight = model.embed.weight
    for micro_batch in (1, 2, 8):
        found, fused = against_loop(model, micro_batch=micro_batch, units=CONSTANT_LAMBDA, rao_blackwell=True)
        assert found < 1e-10
        # `free` is nobody's layer: autograd's in every case.
        assert (fused.fallback_parameters > 1) == (case in AUTOGRAD)
