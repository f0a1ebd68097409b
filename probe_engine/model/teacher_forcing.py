"""Teacher forcing: S[n,g] = Σ_t log π_θ(y_t | x_n, y_<t) over response tokens (method.md §1)."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from probe_engine.estimators.token_statistics import (
    LEAST_LOG_PROB,
    TokenScores,
    TokenStatistics,
    room_for,
    token_scores,
    token_statistics,
)
from probe_engine.model.sharding import reshard
from probe_engine.registry import unwrapped
from probe_engine.vectors import wide

Side = Literal["left", "right"]

CHUNK_BYTES = 64 * 2**20
"""Float32 copies of logits are made this many bytes at a time: a 150k vocabulary multiplies nothing."""
STATISTICS_BYTES = 2**20
"""The same for token statistics on a CPU, a dozen copies that should stay in a core's cache."""
LAUNCHED_BYTES = 16 * 2**20
"""The same on other devices, where a short piece costs what a long one does."""
ENTROPY_BYTES = 8 * 2**20
"""The same for entropies with a graph, which are computed once more, with half a dozen copies, in the reverse
pass."""


@dataclass(frozen=True, slots=True)
class TokenSequence:
    """A prompt's token ids and those of one response to it."""

    prompt: tuple[int, ...]
    response: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.prompt) + len(self.response)

    def ends(self, context: int, tokens: int) -> TokenSequence:
        """The last `context` tokens of the prompt, before the last `tokens` of the response."""
        return TokenSequence(self.prompt[-context:], self.response[-tokens:])


@dataclass(frozen=True)
class Layout:
    """A padded micro-batch. N sequences of at most T tokens, the last K positions hold all responses."""

    input_ids: Tensor
    """[N, T]"""
    attention_mask: Tensor | None
    """[N, T]; None where nothing is padded"""
    position_ids: Tensor
    """[N, T], counted from each sequence's own first token"""
    targets: Tensor
    """[N, K] the token that each kept position predicts (0 where none)"""
    mask: Tensor
    """[N, K] True where the target is a response token; made from lengths, for pad may equal eos"""
    responses: tuple[int, ...]
    """Tokens of each sequence's response."""

    @classmethod
    def of(
        cls,
        sequences: Sequence[TokenSequence],
        *,
        device: torch.device,
        padding_side: Side | Sequence[Side] = "right",
    ) -> Layout:
        """Pads on the right by default: a causal model's real tokens never see what stands behind them."""
        longest = max(len(s) for s in sequences)
        sides = [padding_side] * len(sequences) if isinstance(padding_side, str) else padding_side
        offsets = [
            longest - len(s) if side == "left" else 0 for s, side in zip(sequences, sides, strict=True)
        ]
        # Position i predicts token i + 1, so the first kept position is the prompt's last token.
        keep = max(longest - offset - len(s.prompt) + 1 for s, offset in zip(sequences, offsets, strict=True))
        first = longest - keep
        shape = (len(sequences), longest)
        input_ids = torch.zeros(shape, dtype=torch.long)
        attention_mask = torch.zeros(shape, dtype=torch.long)
        position_ids = torch.zeros(shape, dtype=torch.long)
        targets = torch.zeros((len(sequences), keep), dtype=torch.long)
        mask = torch.zeros((len(sequences), keep), dtype=torch.bool)
        for row, (s, offset) in enumerate(zip(sequences, offsets, strict=True)):
            input_ids[row, offset : offset + len(s)] = torch.tensor(s.prompt + s.response)
            attention_mask[row, offset : offset + len(s)] = 1
            position_ids[row, offset : offset + len(s)] = torch.arange(len(s))
            start = offset + len(s.prompt) - 1 - first
            targets[row, start : start + len(s.response)] = torch.tensor(s.response)
            mask[row, start : start + len(s.response)] = True
        return cls(
            input_ids.to(device),
            attention_mask.to(device),
            position_ids.to(device),
            targets.to(device),
            mask.to(device),
            tuple(len(s.response) for s in sequences),
        )

    @property
    def kept(self) -> Tensor:
        """The positions that logits are wanted of, [K], as `logits_to_keep`.

        Their number alone would do; but a slice of the last positions is a view with gaps, for which torch
        multiplies sequence by sequence and reads the head's weight for each.
        """
        longest, keep = self.input_ids.shape[1], self.targets.shape[1]
        return torch.arange(longest - keep, longest, device=self.input_ids.device)

    def forward_pass(self) -> AbstractContextManager[None]:
        """Around the model's forward."""
        return nullcontext()

    def of_kept(self, logits: Tensor) -> Tensor:
        """[N, K, V] of logits at all positions."""
        return logits[:, -self.targets.shape[1] :]

    def sums(self, terms: Tensor) -> Tensor:
        """Of each sequence's response, [N], float64, of one number a kept position, [N, K]."""
        return sequence_log_probs(torch.where(self.mask, terms, terms.new_zeros(())))


def response_logits(model: nn.Module, layout: Layout, *, placed: bool = True) -> Tensor:
    """Logits at the kept positions, [N, K, V], in the model's dtype.

    Passes `position_ids` (unless not `placed`) and `logits_to_keep` where the model's forward takes them.
    """
    accepted = _forward_parameters(model)
    extra: dict[str, object] = {}
    if placed and "position_ids" in accepted:
        extra["position_ids"] = layout.position_ids
    if "use_cache" in accepted:
        extra["use_cache"] = False
    if "Tensor" in accepted.get("logits_to_keep", ""):  # a few models take a number or a slice alone
        extra["logits_to_keep"] = layout.kept
    with layout.forward_pass():
        output = model(input_ids=layout.input_ids, attention_mask=layout.attention_mask, **extra)
    reshard(model)  # else FSDP2's root keeps its gathered copy, which the next step on the shards passes by
    logits = cast(Tensor, output.logits if hasattr(output, "logits") else output)
    # Autograd would copy them whole for a slice that takes all.
    return logits if logits.shape[1] == layout.targets.shape[1] else layout.of_kept(logits)


def response_log_probs(logits: Tensor, layout: Layout, temperature: float = 1.0) -> Tensor:
    """log π of each response token, [N, K], 0 elsewhere; float32 or wider, computed in chunks."""
    vocabulary = logits.shape[-1]
    flat, targets = logits.reshape(-1, vocabulary), layout.targets.reshape(-1)
    rows = max(1, CHUNK_BYTES // (4 * vocabulary))
    # Low-precision logits are widened chunk by chunk; the checkpoint keeps the wide copies from
    # staying alive until the backward pass.
    narrow = logits.requires_grad and wide(logits.dtype) != logits.dtype
    chunks = [
        cast(Tensor, checkpoint(_selected_log_probs, c, t, temperature, use_reentrant=False))
        if narrow
        else _selected_log_probs(c, t, temperature)
        for c, t in zip(torch.split(flat, rows), torch.split(targets, rows), strict=True)
    ]
    log_probs = torch.cat(chunks).reshape(layout.targets.shape)
    return torch.where(layout.mask, log_probs, log_probs.new_zeros(()))


def response_statistics(
    logits: Tensor, layout: Layout, temperature: float = 1.0
) -> tuple[TokenStatistics, ...]:
    """Token statistics of each sequence's response, on the CPU, without a graph, computed in chunks."""
    room: list[Tensor] = []

    def of(z: Tensor, sampled: Tensor) -> TokenStatistics:
        if not room:
            room.append(room_for(z))  # the first chunk is the largest
        return token_statistics(z, sampled, room[0])

    parts = [of(*chunk) for chunk in _response_chunks(logits, layout, temperature)]
    return TokenStatistics.joined(parts).cpu().split(layout.responses)


def response_scores(logits: Tensor, layout: Layout, temperature: float = 1.0) -> tuple[TokenScores, ...]:
    """What scoring anew needs of each sequence's response, likewise."""
    parts = [token_scores(*chunk) for chunk in _response_chunks(logits, layout, temperature)]
    return TokenScores.joined(parts).cpu().split(layout.responses)


def _response_chunks(logits: Tensor, layout: Layout, temperature: float) -> Iterator[tuple[Tensor, Tensor]]:
    """Scaled logits [T, V] and targets [T] of response tokens alone, a piece at a time."""
    vocabulary = logits.shape[-1]
    places = layout.mask.reshape(-1).nonzero().squeeze(-1)
    flat, targets = logits.detach().reshape(-1, vocabulary), layout.targets.reshape(-1)
    for i in torch.split(places, rows_at_once(logits, STATISTICS_BYTES)):
        yield scaled(flat[i], temperature), targets[i]


def rows_at_once(logits: Tensor, cached: int) -> int:
    """Rows of logits [..., V] in a piece of so many `cached` bytes on a CPU."""
    nbytes = cached if logits.device.type == "cpu" else LAUNCHED_BYTES
    return max(1, nbytes // (4 * logits.shape[-1]))


def rao_blackwell_sums(
    logits: Tensor, layout: Layout, to_come: Sequence[Tensor], temperature: float = 1.0
) -> Tensor:
    """Σ_t [ h_t + W_t·log π_t ] of each response, [N], float64, with a graph: what (2b) differentiates.

    Args:
        logits: [N, K, V]
        to_come: W_t of each response's tokens, constants.
    """
    vocabulary = logits.shape[-1]
    weights = torch.zeros(layout.mask.shape, dtype=wide(logits.dtype), device=logits.device)
    weights[layout.mask] = torch.cat(list(to_come)).to(weights)
    rows = max(1, ENTROPY_BYTES // (4 * vocabulary))
    columns = (logits.reshape(-1, vocabulary), layout.targets.reshape(-1), weights.reshape(-1))
    terms = [
        cast(
            Tensor,
            checkpoint(
                _rao_blackwell_terms, *chunk, temperature, use_reentrant=False, preserve_rng_state=False
            ),
        )
        for chunk in zip(*(torch.split(column, rows) for column in columns), strict=True)
    ]
    placed = torch.cat(terms).reshape(layout.mask.shape)
    return torch.where(layout.mask, placed, placed.new_zeros(())).double().sum(-1)


def token_log_probs(
    model: nn.Module,
    sequences: Sequence[TokenSequence],
    *,
    temperature: float = 1.0,
    padding_side: Side = "right",
) -> tuple[Tensor, Tensor]:
    """Scores one micro-batch.

    Returns:
        log π of response tokens [N, K] (0 elsewhere), with a graph where gradients are on,
        and the mask [N, K] of response positions.
    """
    layout = Layout.of(sequences, device=device_of(model), padding_side=padding_side)
    return response_log_probs(response_logits(model, layout), layout, temperature), layout.mask


def sequence_log_probs(log_probs: Tensor) -> Tensor:
    """S [N] of token log-probabilities [N, K], nats, in float64 so that long sums lose nothing."""
    return log_probs.double().sum(-1)


def takes_position_ids(model: nn.Module) -> bool:
    """Whether the model's forward may be told each token's position: bloom's and mamba's may not."""
    return "position_ids" in _forward_parameters(model)


def device_of(model: nn.Module) -> torch.device:
    """Where inputs go: the device of the input embeddings."""
    return next(model.parameters()).device


def _selected_log_probs(logits: Tensor, targets: Tensor, temperature: float) -> Tensor:
    z = scaled(logits, temperature)
    # log_softmax at one index: logsumexp saves no [tokens, V] result for the backward pass.
    return z.gather(-1, targets[:, None]).squeeze(-1) - z.logsumexp(-1)


def scaled(logits: Tensor, temperature: float) -> Tensor:
    """In float32 or wider; no copy where nothing changes, for logits are what takes most memory."""
    widened = logits.to(wide(logits.dtype))
    return widened if temperature == 1 else widened / temperature


def _rao_blackwell_terms(logits: Tensor, targets: Tensor, weights: Tensor, temperature: float) -> Tensor:
    ell = scaled(logits, temperature).log_softmax(-1)
    entropies = -(ell.exp() * ell.clamp(min=LEAST_LOG_PROB)).sum(-1)
    return entropies + weights * ell.gather(-1, targets[:, None]).squeeze(-1)


def _forward_parameters(model: nn.Module) -> dict[str, str]:
    """With their types, as they are written."""
    inner = unwrapped(model)
    base = getattr(inner, "get_base_model", None)
    target = cast(nn.Module, base()) if callable(base) else inner
    return {name: str(given) for name, given in inspect.signature(target.forward).parameters.items()}
