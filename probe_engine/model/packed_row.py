"""Several sequences one behind the other in one row, responses to one prompt with that prompt in common.

The prompt stands there twice, whatever the number of its responses. Both copies are the same going forward.
Going back, what the responses ask of their prompt is added up before it goes on into the prompt's own tokens,
and X and Y add it up with different weights: so the first copy takes the one sum and the second the other.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from probe_engine.model.teacher_forcing import TokenSequence

COPIES = 2
"""Of a prompt: one for each kind of gradient of a reverse pass."""


@dataclass(frozen=True)
class Segment:
    """Tokens that stand one behind the other: a sequence, a copy of a prompt, or a response."""

    tokens: tuple[int, ...]
    start: int
    """Position of the first one in its sequence."""
    sequence: int | None
    """Whose response it ends with; None of a prompt's copy."""
    prompt: int | None = None
    """The segment, by index, that its tokens come after: its prompt's first copy."""

    def __len__(self) -> int:
        return len(self.tokens)


def added(sequence: TokenSequence, before: int, copies: int = COPIES) -> int:
    """Tokens that a sequence adds to a row in which `before` others have its prompt in common with it.

    The second one brings the prompt's second copy.
    """
    return len(sequence) if before < copies else len(sequence.response) + 1


def row_tokens(sequences: Sequence[TokenSequence], owners: Sequence[int], copies: int = COPIES) -> int:
    """Of a row of all of them."""
    tokens, before = 0, Counter[tuple[int, tuple[int, ...]]]()
    for s, owner in zip(sequences, owners, strict=True):
        tokens += added(s, before[owner, s.prompt], copies)
        before[owner, s.prompt] += 1
    return tokens


class Shares:
    """Of what a response's reverse pass brings its prompt, how much goes into which copy: all into the first
    one, unless told otherwise."""

    def __init__(self) -> None:
        self._weights: list[list[float]] | None = None

    def of(self, sequence: int) -> tuple[float, ...]:
        """Into each copy."""
        return (1.0,) + (0.0,) * (COPIES - 1) if self._weights is None else tuple(self._weights[sequence])

    def tell(self, weights: Tensor | None) -> None:
        """[N, COPIES] of all sequences; None for what is usual."""
        self._weights = None if weights is None else weights.tolist()


@dataclass(frozen=True, eq=False)
class Row:
    """Of N sequences. The longest response to a shared prompt stands right behind the first copy: what it
    may see of its sequence says that of all others, which are no longer. The second copy stands behind them
    all: what one kind of gradient is made of, a copy and the responses, is one run of the row."""

    segments: tuple[Segment, ...]
    shares: Shares = field(default_factory=Shares)

    @classmethod
    def of(cls, sequences: Sequence[TokenSequence], owners: Sequence[int], copies: int = COPIES) -> Row:
        """Of these sequences, prompt by prompt.

        Args:
            sequences: as they come.
            owners: whose each of them is: a prompt is shared within one owner's.
            copies: of a shared prompt; one will do where nothing is differentiated.
        """
        by_prompt = defaultdict[tuple[int, tuple[int, ...]], list[int]](list)
        for index, (s, owner) in enumerate(zip(sequences, owners, strict=True)):
            by_prompt[owner, s.prompt].append(index)
        segments: list[Segment] = []
        for (_, prompt), members in by_prompt.items():
            # The last token stays with each response, whose first token it predicts.
            before = prompt[:-1]
            if len(members) == 1 or not before:
                segments += [Segment(prompt + sequences[i].response, 0, i) for i in members]
                continue
            first = len(segments)
            copy = Segment(before, 0, None)
            responses = [
                Segment(prompt[-1:] + sequences[i].response, len(before), i, first)
                for i in sorted(members, key=lambda i: -len(sequences[i]))
            ]
            segments += [copy, *responses, *[copy] * (copies - 1)]
        return cls(tuple(segments))

    @cached_property
    def lengths(self) -> tuple[int, ...]:
        """Of the segments."""
        return tuple(map(len, self.segments))

    @cached_property
    def places(self) -> tuple[int, ...]:
        """Each sequence's segment, [N]."""
        found = {s.sequence: place for place, s in enumerate(self.segments) if s.sequence is not None}
        return tuple(found[sequence] for sequence in range(len(found)))

    @cached_property
    def shared(self) -> dict[int, list[int]]:
        """The sequences that have a prompt in common, by the segment of its first copy."""
        found = defaultdict[int, list[int]](list)
        for sequence, place in enumerate(self.places):
            prompt = self.segments[place].prompt
            if prompt is not None:
                found[prompt].append(sequence)
        return dict(found)

    @cached_property
    def copies(self) -> dict[int, list[int]]:
        """All copies of a shared prompt, by the first one."""
        found = {}
        for first, members in self.shared.items():
            second = first + len(members) + 1
            found[first] = [first, *range(second, second + COPIES - 1)]
        return found

    def by_segment(self, of_sequences: Sequence[Tensor], nothing: Tensor) -> list[Tensor]:
        """What each segment has of what sequences have: a prompt's copy nothing."""
        return [nothing if s.sequence is None else of_sequences[s.sequence] for s in self.segments]

    def owners(self, of_sequences: Tensor) -> Tensor:
        """Each segment's, [segments] of [N]."""
        owners = of_sequences.new_empty(len(self.segments))
        owners[list(self.places)] = of_sequences
        for first, members in self.shared.items():
            owners[self.copies[first]] = of_sequences[members[0]]
        return owners

    def weights(self, of_sequences: Tensor) -> Tensor:
        """Each segment's in the gradients of each owner, [k, owners, segments] of [k, owners, N].

        What reaches a copy is weighted already, but for the largest weight: small ones are no numbers to
        send through a model in 16 bits.
        """
        weights = of_sequences.new_zeros(*of_sequences.shape[:2], len(self.segments))
        weights[..., list(self.places)] = of_sequences
        for first, members in self.shared.items():
            for kind, (copy, of_kind) in enumerate(zip(self.copies[first], of_sequences, strict=False)):
                weights[kind, :, copy] = of_kind[:, members].abs().amax(1)
        return weights

    def share(self, of_sequences: Tensor | None) -> None:
        """Says how much each response weighs in its prompt's δ, by weights as `weights` takes them; or,
        with None, that it is 1, in the first copy."""
        if of_sequences is None:
            self.shares.tell(None)
            return
        weights = of_sequences.sum(1).T  # of its owner: those in others' gradients are 0
        shares = weights.new_zeros(len(weights), COPIES)
        for members in self.shared.values():
            largest = weights[members].abs().amax(0)
            shares[members, : weights.shape[1]] = torch.where(largest > 0, weights[members] / largest, 0)
        self.shares.tell(shares)

    def foreign(self, sequence: int) -> Tensor:
        """Where this sequence's gradient has no business while shares are as usual, [segments], 0 or 1."""
        place = self.places[sequence]
        foreign = torch.ones(len(self.segments))
        foreign[place] = 0
        if (prompt := self.segments[place].prompt) is not None:
            foreign[prompt] = 0
        return foreign
